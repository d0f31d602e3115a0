"""The command line: ``python -m ppl_lvm compare``, ``report`` and ``engines``.

Thin: arguments become a model of the zoo, engines and data; the work is that of :func:`ppl_lvm.fit`,
:func:`ppl_lvm.compare` and ``Comparison.to_html``. Results go to standard output, progress and complaints to
standard error. Exit codes: 0 done; 1 a fit or the comparison failed; 2 bad usage or input, said in one line;
3, with ``--strict`` only, some verdict is ``do_not_trust``; 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ppl_lvm.command_line._arguments import Options, parser
from ppl_lvm.command_line._words import BadInput, complain

DONE, FAILED, BAD, UNTRUSTED, INTERRUPTED = 0, 1, 2, 3, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code. ``arguments`` None: those of the process."""
    try:
        options: Options = parser().parse_args(arguments, namespace=Options())
    except SystemExit as ended:  # argparse has said what is wrong, or has shown the help
        return int(ended.code or 0)
    try:
        return _run(options)
    except BadInput as error:
        complain(str(error))
        return BAD
    except KeyboardInterrupt:
        complain("interrupted; what had finished is saved")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone
        sys.stderr.close()
        return DONE


def _run(options: Options) -> int:
    if options.command == "compare":
        from ppl_lvm.command_line._compare import run_compare

        return run_compare(options)
    if options.command == "report":
        from ppl_lvm.command_line._report import run_report

        return run_report(options)
    from ppl_lvm.command_line._engines import run_engines

    return run_engines(options)


__all__ = ["BAD", "DONE", "FAILED", "INTERRUPTED", "UNTRUSTED", "main"]

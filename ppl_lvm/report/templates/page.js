(() => {
  "use strict";
  const words = new Intl.Collator("en", { numeric: true });

  // A number's key is its full value; empty keys (missing values) stay last whichever way round.
  const compare = (column, sign) => (a, b) => {
    const [x, y] = [a.cells[column], b.cells[column]];
    if (x.dataset.key === undefined || y.dataset.key === undefined) {
      return sign * words.compare(x.textContent, y.textContent);
    }
    if (x.dataset.key === "" || y.dataset.key === "") return (x.dataset.key === "") - (y.dataset.key === "");
    return sign * (Number(x.dataset.key) - Number(y.dataset.key));
  };
  const makeSortable = (table) => {
    const body = table.tBodies[0];
    const rows = Array.from(body.rows);
    const heads = Array.from(table.tHead.rows[0].cells);
    const sortBy = (column) => {
      const rising = heads[column].getAttribute("aria-sort") !== "ascending";
      heads.forEach((head) => head.removeAttribute("aria-sort"));
      heads[column].setAttribute("aria-sort", rising ? "ascending" : "descending");
      rows.sort(compare(column, rising ? 1 : -1));
      body.append(...rows);
    };
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent.trim();
      button.title = `sort by ${button.textContent}${head.title ? ": " + head.title : ""}`;
      head.removeAttribute("title");
      const printed = document.createElement("span");  // buttons are not repeated on every page of paper
      printed.className = "printed";
      printed.textContent = button.textContent;
      printed.setAttribute("aria-hidden", "true");
      head.replaceChildren(button, printed);
      button.addEventListener("click", () => sortBy(column));
    });
  };
  document.querySelectorAll("table.sortable").forEach(makeSortable);

  const rows = Array.from(document.getElementById("table").tBodies[0].rows);
  const form = document.getElementById("filter-form");
  const box = document.getElementById("filter");
  const count = document.getElementById("count");
  const filter = () => {
    const wanted = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach((row) => {
      const text = (row.cells[0].textContent + " " + row.cells[1].textContent).toLowerCase();
      row.hidden = !wanted.every((word) => text.includes(word));
      shown += row.hidden ? 0 : 1;
    });
    count.textContent = `${shown} of ${rows.length} rows`;
  };
  box.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  filter();

  // Paper shows what a click would open.
  const opened = [];
  window.addEventListener("beforeprint", () => {
    document.querySelectorAll("details:not([open])").forEach((item) => { item.open = true; opened.push(item); });
  });
  window.addEventListener("afterprint", () => { opened.splice(0).forEach((item) => { item.open = false; }); });
})();

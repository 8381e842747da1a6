
"use strict";
// Everything here is an addition: without it the page can be read, searched by the browser, and copied from by hand.
const address = document.querySelector("[data-address]");
if (address && location.protocol.startsWith("http")) {
  const here = new URL(".", location.href).href.replace(/\/$/, "");
  for (const code of document.querySelectorAll("pre code")) {
    code.textContent = code.textContent.replaceAll(address.dataset.address + "/", here + "/");
  }
  address.hidden = true;
}
for (const button of document.querySelectorAll("button.copy")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const code = button.parentElement.querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
    } catch {
      // A page without HTTPS has no clipboard: select the lines, and use the old way.
      getSelection().selectAllChildren(code);
      document.execCommand("copy");
    }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
}
const search = document.getElementById("search");
const found = document.getElementById("found");
search.hidden = false;
search.addEventListener("input", () => {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const fits = (element) => words.every((word) => element.dataset.search.toLowerCase().includes(word));
  let wheels = 0;
  for (const row of document.querySelectorAll("tr[data-search]")) row.hidden = !fits(row);
  for (const section of document.querySelectorAll("section.index")) {
    let any = false;
    for (const wheel of section.querySelectorAll("li[data-search]")) {
      wheel.hidden = !fits(wheel);
      if (!wheel.hidden) { any = true; wheels += 1; }
    }
    section.hidden = !any;
  }
  found.textContent = words.length ? `Wheels found: ${wheels}` : "";
});

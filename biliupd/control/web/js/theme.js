// Runs before anything is drawn, so that nobody who likes it dark sees a white flash. No module: those come too late.
(function () {
  const dark = matchMedia("(prefers-color-scheme: dark)");

  function apply() {
    let wanted = "";
    try {
      wanted = localStorage.getItem("biliupd.theme") || "";
    } catch {
      // a browser may keep nothing for us
    }
    const known = wanted === "light" || wanted === "dark";
    document.documentElement.dataset.theme = known ? wanted : dark.matches ? "dark" : "light";
  }

  apply();
  dark.addEventListener("change", apply);
  document.addEventListener("biliupd:theme", apply);
})();

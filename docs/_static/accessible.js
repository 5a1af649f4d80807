// What the theme leaves out for keyboards and screen readers: regions that scroll can be reached, headings have a level.
document.addEventListener("DOMContentLoaded", () => {
  for (const region of document.querySelectorAll("pre, .table-wrapper, .sig")) region.tabIndex = 0;
  for (const heading of document.querySelectorAll('[role="heading"]:not([aria-level])')) heading.setAttribute("aria-level", "2");
});

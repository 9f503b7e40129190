// Equations are set by the KaTeX beside this file; no page asks a network for anything.
document.addEventListener("DOMContentLoaded", () =>
  document.querySelectorAll(".arithmatex").forEach((element) =>
    renderMathInElement(element, {
      delimiters: [
        { left: "\\[", right: "\\]", display: true },
        { left: "\\(", right: "\\)", display: false },
      ],
    }),
  ),
);

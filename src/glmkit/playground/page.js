// Ctrl/⌘ + Enter presses the button of the tab that is open.
document.addEventListener("keydown", event => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  const button = [...document.querySelectorAll("button.run")].find(one => one.offsetParent !== null);
  if (!button) return;
  event.preventDefault();
  event.stopPropagation();
  // Gradio takes over what was typed on "input"; a field that still has the focus has told it already.
  button.click();
}, true);

// A blank where the cursor is.
function glmInsert(id, text, mask) {
  const box = document.querySelector(`#${id} textarea`);
  const start = box ? box.selectionStart : (text || "").length;
  const end = box ? box.selectionEnd : start;
  setTimeout(() => { if (box) { box.focus(); box.setSelectionRange(start + mask.length, start + mask.length); } }, 60);
  return (text || "").slice(0, start) + mask + (text || "").slice(end);
}

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

// What the server refuses before a tab hears of it: said here, in the page's language, and not in Gradio's English.
const glmFetch = window.fetch;
window.fetch = async (...request) => {
  let answer;
  try {
    answer = await glmFetch(...request);
  } catch (error) {
    if (error.name !== "AbortError") glmTell(glmWords.away);
    throw error;
  }
  if (answer.status === 401) location.assign("/login");
  else if (answer.status === 429) glmTell(glmWords.often.replace("{seconds}", answer.headers.get("Retry-After") || "1"));
  else if (answer.status === 413) glmTell(glmWords.large);
  else if (answer.status >= 400) glmTell(glmWords.away);
  return answer;
};
function glmTell(text) {
  let told = document.getElementById("glm-told");
  if (!told) {
    told = document.body.appendChild(document.createElement("div"));
    told.id = "glm-told";
    told.setAttribute("role", "alert");
  }
  told.textContent = text;
  clearTimeout(told.timer);
  told.timer = setTimeout(() => told.remove(), 8000);
}

// A blank where the cursor is.
function glmInsert(id, text, mask) {
  const box = document.querySelector(`#${id} textarea`);
  const start = box ? box.selectionStart : (text || "").length;
  const end = box ? box.selectionEnd : start;
  setTimeout(() => { if (box) { box.focus(); box.setSelectionRange(start + mask.length, start + mask.length); } }, 60);
  return (text || "").slice(0, start) + mask + (text || "").slice(end);
}

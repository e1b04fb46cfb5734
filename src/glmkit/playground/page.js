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

// Images, sounds and clips: kept in the page, and sent with what they belong to.
const glmItems = {}, glmUsed = {}, glmDone = {};
const glmIcons = {image: "▣", audio: "♪", video: "▶"};
function glmMedia(place, again) {
  if (!again) glmUsed[place] = (glmItems[place] || []).slice();
  return JSON.stringify((glmUsed[place] || []).map(({kind, url, name, thumb}) => ({kind, url, name, thumb})));
}
function glmForget(place) {
  glmItems[place] = [];
  glmDone[place] = 0;
  glmShow(place);
}
// What a conversation shows has been sent; what is left waits for the next turn.
function glmLogged(log) {
  const parts = (log || []).flatMap(turn => Array.isArray(turn.content) ? turn.content : [turn.content]);
  const before = glmDone.chat || 0;
  glmDone.chat = parts.filter(part => part.type === "component").length;
  if (!parts.length && before) (glmItems.chat || []).splice(0, before);  // emptied
  glmShow("chat");
}
function glmShow(place) {
  const list = document.querySelector(`.media[data-place="${place}"] .picked`);
  if (!list) return;
  const items = glmItems[place] || [], remove = list.closest(".media").dataset.remove;
  list.replaceChildren(...items.slice(glmDone[place] || 0).map(item => {
    const line = document.createElement("li"), name = document.createElement("span"), button = document.createElement("button");
    const sight = document.createElement(item.thumb ? "img" : "span");
    if (item.thumb) Object.assign(sight, {src: item.thumb, alt: ""});
    else Object.assign(sight, {textContent: glmIcons[item.kind], className: "icon"});
    Object.assign(name, {textContent: item.name, className: "file"});
    Object.assign(button, {type: "button", textContent: "×", title: remove});
    button.setAttribute("aria-label", `${remove}: ${item.name}`);
    button.addEventListener("click", () => {
      items.splice(items.indexOf(item), 1);
      glmShow(place);
    });
    line.className = "medium";
    line.append(sight, name, button);
    return line;
  }));
}
async function glmAdd(box, files) {
  const {place, kinds, most, bytes} = box.dataset;
  for (const file of files) {
    const items = glmItems[place] = glmItems[place] || [], kind = file.type.split("/")[0];
    if (!kinds.split(" ").includes(kind)) glmTell(glmWords.media_kind.replace("{name}", file.name));
    else if (items.length >= Number(most)) glmTell(glmWords.media_many.replace("{most}", most));
    else if (items.reduce((sum, one) => sum + one.size, file.size) > Number(bytes))
      glmTell(glmWords.media_large.replace("{most}", (bytes / 2 ** 20).toFixed(1)));
    else {
      const [url, thumb] = await Promise.all([glmRead(file, kind), glmThumb(file, kind)]);
      items.push({kind, name: file.name, size: file.size, url, thumb});
      glmShow(place);
    }
  }
}
const glmRead = (file, kind) => new Promise((done, failed) => {
  const reader = new FileReader();
  reader.onload = () => done(`data:${kind}/any;base64,` + reader.result.split(",")[1]);
  reader.onerror = failed;
  reader.readAsDataURL(file);
});
// A small picture, or null where the browser cannot show the file (the server may still read it).
async function glmThumb(file, kind) {
  const place = URL.createObjectURL(file);
  try {
    const sight = kind === "image" ? new Image() : kind === "video" ? document.createElement("video") : null;
    if (!sight) return null;
    await new Promise((done, failed) => {
      sight.onerror = failed;
      sight[kind === "image" ? "onload" : "onloadeddata"] = done;
      setTimeout(failed, 2000);
      Object.assign(sight, {muted: true, preload: "auto", src: place});
    });
    const width = sight.naturalWidth || sight.videoWidth, height = sight.naturalHeight || sight.videoHeight;
    const canvas = document.createElement("canvas"), scale = Math.min(1, 160 / Math.max(width, height));
    canvas.width = Math.max(1, Math.round(width * scale));
    canvas.height = Math.max(1, Math.round(height * scale));
    canvas.getContext("2d").drawImage(sight, 0, 0, canvas.width, canvas.height);
    return canvas.toDataURL("image/webp", 0.8);
  } catch {
    return null;
  } finally {
    URL.revokeObjectURL(place);
  }
}
document.addEventListener("change", event => {
  const box = event.target.closest(".media");
  if (!box || event.target.type !== "file") return;
  glmAdd(box, [...event.target.files]).finally(() => { event.target.value = ""; });
});
// Dropped on a tab, or pasted into it.
const glmBox = event => event.target.closest?.(".glm-tab")?.querySelector(".media");
const glmFiles = data => [...(data?.files || [])];
document.addEventListener("dragover", event => { if (glmBox(event)) event.preventDefault(); });
document.addEventListener("drop", event => {
  const box = glmBox(event), files = glmFiles(event.dataTransfer);
  if (!box || !files.length) return;
  event.preventDefault();
  glmAdd(box, files);
});
document.addEventListener("paste", event => {
  const box = glmBox(event), files = glmFiles(event.clipboardData);
  if (!box || !files.length) return;
  event.preventDefault();
  glmAdd(box, files);
}, true);

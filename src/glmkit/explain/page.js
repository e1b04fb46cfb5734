"use strict";
(() => {
  const data = JSON.parse(document.getElementById("evidence").textContent);
  const chosen = { evidence: 0, method: 0, unit: null, map: 0, layer: -1, head: -1 };
  const SIGNED = (method) => method !== "attention_rollout";

  // Texts become text nodes alone: nothing that a user wrote is ever HTML.
  const el = (tag, properties = {}, ...children) => {
    const node = Object.assign(document.createElement(tag), properties);
    node.append(...children.filter((child) => child !== null));
    return node;
  };
  const both = (english, chinese) => {
    const node = el("span");
    node.append(el("span", { className: "en", textContent: english }), el("span", { className: "zh", textContent: chinese }));
    return node;
  };
  const METHODS = {
    integrated_gradients: ["integrated gradients", "积分梯度"],
    ablation: ["ablation", "逐词遮蔽"],
    attention_rollout: ["attention rollout", "注意力展开"],
  };
  const methodName = (method) => both(...METHODS[method]);
  const SPECIAL = { "<|endofpiece|>": "⟨end⟩", "<|startofpiece|>": "⟨start⟩", "<|endoftext|>": "⟨eos⟩" };
  const tokenName = (token) => SPECIAL[token] ?? token;
  const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(3);
  const percent = (value) => (value > 0 && value < 5e-5 ? value.toExponential(1) : (100 * value).toFixed(value < 0.1 ? 2 : 1) + " %");
  const shade = (value, largest) => {
    const share = largest > 0 ? Math.min(1, Math.abs(value) / largest) : 0;
    return `rgba(var(${value < 0 ? "--against" : "--for"}),${(0.7 * share).toFixed(3)})`;
  };
  const fill = (id, ...nodes) => document.getElementById(id).replaceChildren(...nodes.filter((node) => node !== null));
  const pressed = (button, on) => { button.setAttribute("aria-pressed", String(on)); return button; };
  const picker = (name, labels, current, pick) => {
    const row = el("div", { className: "pick" }, el("span", { className: "name" }, name));
    labels.forEach((label, number) => row.append(pressed(el("button", { type: "button", onclick: () => pick(number) }, label), number === current)));
    return row;
  };

  function drawChoices() {
    const one = data.evidence[chosen.evidence];
    const rows = [];
    if (data.evidence.length > 1) rows.push(picker(both("blank", "空白"), data.evidence.map((some, n) => `${n + 1} ${some.content || "∅"}`), chosen.evidence, (n) => { chosen.evidence = n; chosen.unit = null; draw(); }));
    const methods = Object.keys(one.attributions);
    rows.push(picker(both("method", "方法"), methods.map(methodName), chosen.method, (n) => { chosen.method = n; draw(); }));
    fill("choices", ...rows);
  }

  function current() {
    const one = data.evidence[chosen.evidence];
    const method = Object.keys(one.attributions)[chosen.method];
    const found = one.attributions[method];
    return { one, method, found, largest: Math.max(0, ...found.values.map(Math.abs)) };
  }

  function tell(number) {
    const { one, method, found } = current();
    if (number === null || number >= one.units.length) return fill("detail", el("span", { className: "number" }, both("point at a word to see its number", "指向词语可查看数值")));
    const value = found.values[number];
    const parts = [el("b", {}, one.units[number].text), "  "];
    if (SIGNED(method)) parts.push(el("span", { className: "number" }, signed(value) + " nats "), value < 0 ? both("against", "不利") : both("for", "有利"));
    else parts.push(el("span", { className: "number" }, percent(value) + " "), both("of the attention", "的注意力"));
    fill("detail", ...parts);
  }

  function drawText() {
    const { one, method, found, largest } = current();
    const box = el("div", { className: "reading" });
    let blank = null, holder = box;
    for (const [text, unit, number] of one.segments) {
      if (number !== blank) {
        blank = number;
        holder = box;
        if (number !== null) {
          const state = number === chosen.evidence ? " asked" : number > chosen.evidence ? " later" : "";
          holder = el("span", { className: "blank" + state });
          box.append(holder);
        }
      }
      if (unit === null) { holder.append(text); continue; }
      const value = found.values[unit];
      const node = el("span", { className: "unit" + (unit === chosen.unit ? " chosen" : ""), textContent: text, tabIndex: 0 });
      node.style.background = shade(value, largest);
      node.title = SIGNED(method) ? signed(value) + " nats" : percent(value);
      node.onmouseenter = node.onfocus = () => tell(unit);
      node.onmouseleave = () => tell(chosen.unit);
      node.onclick = () => { chosen.unit = unit; drawText(); tell(unit); };
      holder.append(node);
    }
    const swatch = (colour, label) => el("span", {}, Object.assign(el("span", { className: "swatch" }), { style: `background:rgba(var(${colour}),.7)` }), label);
    const legend = SIGNED(method)
      ? [swatch("--for", both("speaks for it", "有利")), swatch("--against", both("speaks against it", "不利"))]
      : [swatch("--for", both("more attention reaches it", "得到更多注意力"))];
    fill("text", box, el("div", { className: "legend" }, ...legend));
    tell(chosen.unit);
  }

  function drawBars(id, items, unitOf) {
    const low = Math.min(0, ...items.map((item) => item.value)), high = Math.max(0, ...items.map((item) => item.value));
    const width = high - low || 1, zero = (100 * -low) / width;
    const box = el("div", { className: "bars" });
    for (const item of items) {
      const bar = el("div", { className: "bar" });
      bar.style.cssText = `left:${(100 * (Math.min(0, item.value) - low)) / width}%;width:${(100 * Math.abs(item.value)) / width}%;background:rgb(var(${item.value < 0 ? "--against" : "--for"}))`;
      const track = el("div", { className: "track" }, bar);
      track.style.setProperty("--zero", `${zero}%`);
      box.append(el("div", { className: "label", title: item.text }, item.text), track, el("div", { className: "number" }, unitOf(item.value)));
    }
    fill(id, box);
  }

  function drawTop() {
    const { one, method, found } = current();
    const order = found.values.map((_, n) => n).sort((a, b) => Math.abs(found.values[b]) - Math.abs(found.values[a])).slice(0, 12);
    const items = order.map((n) => ({ text: one.units[n].text, value: found.values[n] }));
    if (!items.length) fill("top", el("p", { className: "note" }, both("There is no context before this blank.", "该空白之前没有上下文。")));
    else drawBars("top", items, SIGNED(method) ? (value) => signed(value) + " nats" : percent);
    const lines = [];
    if (found.baseline_score !== null) {
      const sum = found.values.reduce((a, b) => a + b, 0), difference = found.score - found.baseline_score;
      const gap = found.gap === null ? "∞" : percent(found.gap);
      lines.push(both(
        `Score ${found.score.toFixed(3)} nats, with all of this hidden ${found.baseline_score.toFixed(3)}: a difference of ${signed(difference)}. The values sum to ${signed(sum)}, a gap of ${gap}${found.steps ? ` (${found.steps} steps)` : "; they need not sum to the difference"}.`,
        `得分 ${found.score.toFixed(3)} nats，全部遮去后为 ${found.baseline_score.toFixed(3)}，相差 ${signed(difference)}。各值之和 ${signed(sum)}，偏差 ${gap}${found.steps ? `（${found.steps} 步）` : "；此法各值之和不必等于差值"}。`));
      if (found.steps && !found.complete) lines.push(el("b", {}, both(" The steps did not suffice; take these values with care.", " 步数不足，请谨慎对待这些数值。")));
    } else lines.push(both("Shares of attention, without a sign: where information could come from, not what it says.", "注意力份额，没有正负：表示信息可能从何而来，而非起何作用。"));
    fill("sum", el("p", { className: "note" }, ...lines));
  }

  function drawSteps() {
    const one = data.evidence[chosen.evidence];
    document.getElementById("steps-part").hidden = !one.steps.length;
    const table = el("table", { className: "steps" });
    for (const step of one.steps) {
      const row = el("tr", {}, el("td", {}, el("b", {}, tokenName(step.token))), el("td", { className: "number" }, percent(step.probability)));
      for (const [text, share] of step.alternatives) {
        const bar = el("span", { className: "share" });
        bar.style.width = `${Math.max(1, 60 * share)}px`;
        row.append(el("td", {}, bar, `${tokenName(text)} `, el("span", { className: "number" }, percent(share))));
      }
      table.append(row);
    }
    fill("steps", el("div", { className: "scroll" }, table));
  }

  function drawLens() {
    const lens = data.evidence[chosen.evidence].lens;
    document.getElementById("lens-part").hidden = !lens;
    if (!lens) return;
    const table = el("table", { className: "grid" });
    table.append(el("tr", {}, el("th", {}, both("layer", "层")), ...lens.tokens.map((token) => el("th", {}, tokenName(token)))));
    for (let layer = lens.top.length - 1; layer >= 0; layer--) {
      const row = el("tr", {}, el("th", {}, layer ? String(layer) : both("embedding", "嵌入")));
      lens.top[layer].forEach(([text, share], n) => {
        const own = lens.probabilities[layer][n];
        const cell = el("td", { textContent: tokenName(text) });
        cell.style.background = `rgba(var(--for),${(0.7 * share).toFixed(3)})`;
        if (text === lens.tokens[n]) cell.style.fontWeight = "700";
        const numbers = `${tokenName(text)} ${percent(share)}   ·   ${tokenName(lens.tokens[n])} ${percent(own)}`;
        cell.title = numbers;
        cell.onmouseenter = cell.onclick = () => fill("lens-detail", numbers);
        row.append(cell);
      });
      table.append(row);
    }
    fill("lens", el("div", { className: "scroll" }, table), el("p", { className: "detail number", id: "lens-detail" }, both("point at a cell", "指向单元格可查看概率")));
  }

  function drawExamples() {
    const items = data.evidence[chosen.evidence].examples.map((one) => ({ text: one.text, value: one.contribution }));
    document.getElementById("examples-part").hidden = !items.length;
    if (items.length) drawBars("examples", items, (value) => signed(value) + " nats");
  }

  // Maps come as bytes of the square root of each weight, layer by layer and head by head.
  const maps = data.attention.map((one) => ({ ...one, bytes: Uint8Array.from(atob(one.weights), (c) => c.charCodeAt(0)) }));
  function weight(map, layer, head, i, j) {
    const size = map.tokens.length;
    const layers = layer < 0 ? [...Array(map.layers).keys()] : [layer], heads = head < 0 ? [...Array(map.heads).keys()] : [head];
    let total = 0;
    for (const l of layers) for (const h of heads) total += (map.bytes[((l * map.heads + h) * size + i) * size + j] / 255) ** 2;
    return total / (layers.length * heads.length);
  }

  function drawAttention() {
    document.getElementById("attention-part").hidden = !maps.length;
    if (!maps.length) return;
    const map = maps[chosen.map], size = map.tokens.length;
    const select = (label, count, name, all) => {
      const node = el("select", { onchange: () => { chosen[name] = Number(node.value); drawAttention(); } });
      if (all) node.append(el("option", { value: -1, textContent: document.documentElement.lang === "zh" ? "平均" : "mean" }));
      for (let n = 0; n < count; n++) node.append(el("option", { value: n, textContent: String(n + 1) }));
      node.value = chosen[name];
      return el("label", {}, label, " ", node);
    };
    const controls = el("div", { className: "pick" });
    if (maps.length > 1) controls.append(select(both("question", "问法"), maps.length, "map", false));
    if (map.layers > 1) controls.append(select(both("layer", "层"), map.layers, "layer", true));
    if (map.heads > 1) controls.append(select(both("head", "头"), map.heads, "head", true));
    const cell = Math.max(4, Math.min(20, Math.floor(720 / size))), names = cell >= 11 ? 86 : 8;
    const canvas = el("canvas"), ratio = window.devicePixelRatio || 1, width = names + cell * size + 2;
    canvas.width = canvas.height = width * ratio;
    canvas.style.width = canvas.style.height = `${width}px`;
    const pen = canvas.getContext("2d"), style = getComputedStyle(document.documentElement);
    pen.scale(ratio, ratio);
    const grid = [];
    for (let i = 0; i < size; i++) for (let j = 0; j < size; j++) grid.push(weight(map, chosen.layer, chosen.head, i, j));
    grid.forEach((value, n) => {
      pen.fillStyle = `rgba(${style.getPropertyValue("--for").trim()},${Math.sqrt(value).toFixed(3)})`;
      pen.fillRect(names + cell * (n % size), names + cell * Math.floor(n / size), cell, cell);
    });
    pen.strokeStyle = style.getPropertyValue("--line");
    pen.strokeRect(names, names, cell * size, cell * size);
    pen.strokeStyle = pen.fillStyle = style.getPropertyValue("--ink");
    const border = names + cell * map.prefix;
    pen.setLineDash([5, 3]);
    pen.beginPath(); pen.moveTo(border, names); pen.lineTo(border, width); pen.moveTo(names, border); pen.lineTo(width, border); pen.stroke();
    if (names > 20) {
      pen.font = `${Math.min(13, cell - 1)}px system-ui,"Noto Sans CJK SC","Microsoft YaHei",sans-serif`;
      pen.textBaseline = "middle";
      const cut = (token) => { const text = tokenName(token); return text.length > 9 ? text.slice(0, 8) + "…" : text; };
      map.tokens.forEach((token, n) => {
        pen.textAlign = "right"; pen.fillText(cut(token), names - 5, names + cell * (n + 0.5));
        pen.save(); pen.translate(names + cell * (n + 0.5), names - 5); pen.rotate(-Math.PI / 2); pen.textAlign = "left"; pen.fillText(cut(token), 0, 0); pen.restore();
      });
    }
    const readout = el("p", { className: "detail number" }, both("point at a cell: row looks at column", "指向格子：行看向列"));
    canvas.onmousemove = canvas.onclick = (event) => {
      const i = Math.floor((event.offsetY - names) / cell), j = Math.floor((event.offsetX - names) / cell);
      if (i < 0 || j < 0 || i >= size || j >= size) return;
      const part = (n) => (n < map.prefix ? "A" : "B");
      readout.textContent = `${part(i)} ${tokenName(map.tokens[i])} → ${part(j)} ${tokenName(map.tokens[j])}: ${percent(grid[i * size + j])}`;
    };
    fill("attention", controls, el("div", { className: "scroll" }, canvas), readout);
  }

  function draw() { drawChoices(); drawText(); drawTop(); drawSteps(); drawLens(); drawExamples(); }
  draw();
  drawAttention();
  new MutationObserver(drawAttention).observe(document.documentElement, { attributes: true, attributeFilter: ["lang"] });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAttention);
})();

// Conveniences: the panel works without this file.
const $ = (query, root = document) => [...root.querySelectorAll(query)];
const parse = (text) => new DOMParser().parseFromString(text, "text/html");
const make = (name, members, ...children) => { const one = Object.assign(document.createElement(name), members); one.append(...children); return one; };
const say = (text) => { document.getElementById("say").textContent = text; };

// Copy: <button data-copy="text"> copies the text; if it is empty, that of the element with the id in data-from, or before it.
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const shown = button.dataset.from ? document.getElementById(button.dataset.from) : button.previousElementSibling;
  try {
    await navigator.clipboard.writeText(button.dataset.copy || shown.textContent);
    say(button.dataset.done = document.body.dataset.copied);
    button.classList.add("done");
    setTimeout(() => button.classList.remove("done"), 1500);
  } catch {
    if (shown) getSelection().selectAllChildren(shown); // the clipboard refuses: ready for Ctrl+C
  }
});

// Fingerprints get their buttons here: they would double a row.
function addCopy(root = document) {
  for (const code of $("code.clip:only-child", root)) {
    const button = make("button", { className: "btn bare", type: "button", ariaLabel: document.body.dataset.fingerprint });
    button.dataset.copy = "";
    code.after(button);
  }
}
addCopy();

// Confirm: <a data-dialog href="/lizenzserver/licenses/lic_1/suspend"> opens the <form> of that page in a dialog.
document.addEventListener("click", async (event) => {
  const link = event.target.closest("a[data-dialog]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  const answer = await fetch(link.href, { headers: { "X-Fragment": "1" } }).catch(() => null);
  if (!answer?.ok || answer.redirected) { location.href = link.href; return; }
  const dialog = make("dialog", { innerHTML: await answer.text() });
  dialog.setAttribute("aria-labelledby", "ask");
  document.body.append(dialog);
  dialog.addEventListener("close", () => { dialog.remove(); link.focus(); });
  $("[data-close]", dialog).forEach((b) => b.addEventListener("click", (e) => { e.preventDefault(); dialog.close(); }));
  dialog.showModal();
  $("[autofocus], [data-close]", dialog)[0]?.focus(); // the first field, or the button that changes nothing
});

// Select all: <input type="checkbox" data-all="selected" hidden> checks the boxes of the form with this id.
for (const all of $("[data-all]")) {
  all.hidden = false;
  const boxes = $(`[type=checkbox][form="${all.dataset.all}"]`);
  const show = () => { all.checked = boxes.every((box) => box.checked); all.indeterminate = !all.checked && boxes.some((box) => box.checked); };
  all.addEventListener("change", () => boxes.forEach((box) => { box.checked = all.checked; }));
  boxes.forEach((box) => box.addEventListener("change", show));
  show();
}

// Type to confirm: <input data-match="acme-studio"> enables the submit button of the form when the text matches.
document.addEventListener("input", (event) => {
  const wanted = event.target.dataset.match;
  if (wanted) event.target.form.querySelector("[type=submit]").disabled = event.target.value.trim() !== wanted;
});

// The time of day in the zone of the other times on the page; in that of the browser, if it does not know the zone.
function clock(at) {
  const show = (more) => new Intl.DateTimeFormat(document.documentElement.lang, { timeStyle: "short", ...more }).format(at);
  try { return show({ timeZone: document.body.dataset.zone }); } catch { return show(); }
}

// Live regions: <div data-live="/lizenzserver/sessions?part=rows" data-every="5"> is reloaded every 5 s. data-button names its pause button.
for (const region of $("[data-live]")) {
  const button = document.getElementById(region.dataset.button);
  const every = Number(region.dataset.every) * 1000;
  let on = true, tag = "", wait = every, lost = null, at = Date.now();
  const busy = () => document.hidden || !on || region.contains(document.activeElement) || document.querySelector("dialog[open]");
  const show = (state) => { if (button) button.dataset.state = state; };
  const tick = async () => {
    if (!busy()) {
      try {
        const answer = await fetch(region.dataset.live, { headers: { "If-None-Match": tag, "X-Fragment": "1" } });
        if (answer.status === 200) { tag = answer.headers.get("ETag") ?? ""; region.innerHTML = await answer.text(); times(region); addCopy(region); }
        if (answer.status === 401) location.reload();
        if (answer.status >= 500) throw answer; // a proxy answers for a server that is gone
        wait = every;
        at = Date.now();
        lost?.remove();
        lost = null;
        show("on");
      } catch {
        wait = Math.min(wait * 2, 60000);
        show("lost");
        if (!lost && region.dataset.lost) {
          lost = make("p", { className: "note warn", role: "status", textContent: region.dataset.lost.replace("{at}", clock(at)) });
          region.before(lost);
        }
      }
    }
    setTimeout(tick, wait);
  };
  if (button) button.hidden = false;
  button?.addEventListener("click", () => { on = !on; button.setAttribute("aria-pressed", String(on)); });
  setTimeout(tick, every);
}

// Navigation: in a narrow window, scroll the current section into view.
$(".rail [aria-current]")[0]?.scrollIntoView({ inline: "center", block: "nearest" });

// Focus: screen readers announce the error summary of a form first.
$("[data-focus]")[0]?.focus();

// Times: inside [data-ago], <time datetime="…Z"> shows its age, which is updated; its title keeps what it showed before.
function times(root = document) {
  const lang = document.documentElement.lang;
  const age = new Intl.RelativeTimeFormat(lang, { style: "short", numeric: "auto" });
  for (const time of $("[data-ago] time", root)) {
    const at = new Date(time.dateTime), s = Math.round((at - Date.now()) / 1000);
    if (s < -86400 * 45) continue;
    if (!time.title.includes("·")) time.title = `${time.textContent} · ${time.title}`;
    const [n, unit] = s > -60 ? [Math.min(s, 0), "second"] : s > -3600 ? [s / 60, "minute"] : s > -86400 ? [s / 3600, "hour"] : [s / 86400, "day"];
    time.textContent = age.format(Math.trunc(n), unit);
  }
}
times();
setInterval(times, 10000);

// Keyboard shortcuts: / search, n new, g and a letter to go to a section, ? help. <body data-keys="off"> disables them (WCAG 2.1.4).
let went = -Infinity;
document.addEventListener("keydown", (event) => {
  if (document.body.dataset.keys === "off" || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, select, textarea, dialog, [contenteditable]")) return;
  const go = performance.now() - went < 1000;
  const target = document.querySelector(`[data-key="${CSS.escape((go ? "g " : "") + event.key)}"]`);
  went = event.key === "g" && !go ? performance.now() : -Infinity;
  if (!target) return;
  event.preventDefault();
  if (target.matches("input")) target.focus(); else target.click();
});

// Help: ? lists the keyboard shortcuts of the page.
document.addEventListener("keydown", (event) => {
  const { keys, help, close } = document.body.dataset;
  if (event.key !== "?" || !help || keys === "off") return;
  if (event.target.closest("input, select, textarea, dialog, [contenteditable]")) return;
  const list = make("dl", { className: "facts" });
  for (const target of $("[data-key]")) {
    list.append(make("dt", {}, make("kbd", {}, target.dataset.key)), make("dd", {}, target.labels?.[0]?.textContent ?? target.firstChild.textContent));
  }
  const form = make("form", { method: "dialog", className: "acts" }, make("button", { className: "btn" }, close));
  const dialog = make("dialog", {}, make("h2", { id: "ask" }, help), list, form);
  dialog.setAttribute("aria-labelledby", "ask");
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
});

// Search: results below the field of the bar while one types (WAI-ARIA combobox with a listbox).
for (const field of $(".bar [type=search]")) {
  const box = make("div", { className: "found", hidden: true });
  const traits = { role: "combobox", autocomplete: "off", "aria-autocomplete": "list", "aria-controls": "found", "aria-expanded": "false" };
  for (const [name, value] of Object.entries(traits)) field.setAttribute(name, value);
  field.form.append(box);
  let timer, asked, at = -1;
  const options = () => $("a[role=option]", box);
  const mark = (place) => {
    at = place;
    options().forEach((option, number) => {
      option.id = `found-${number}`;
      option.setAttribute("aria-selected", String(number === at));
    });
    if (at < 0) return field.removeAttribute("aria-activedescendant");
    field.setAttribute("aria-activedescendant", `found-${at}`);
    options()[at].scrollIntoView({ block: "nearest" });
  };
  const show = (on) => { box.hidden = !on; field.setAttribute("aria-expanded", String(on)); mark(-1); };
  const stop = () => { clearTimeout(timer); asked?.abort(); show(false); };
  const ask = async () => {
    asked?.abort();
    if (!field.value.trim()) return show(false);
    asked = new AbortController();
    const query = new URLSearchParams(new FormData(field.form));
    try {
      const answer = await fetch(`${new URL(field.form.action).pathname}?${query}`, { headers: { "X-Fragment": "1" }, signal: asked.signal });
      if (!answer.ok || answer.redirected) return show(false);
      box.innerHTML = await answer.text();
      show(true);
      say(box.firstElementChild.dataset.said);
    } catch { /* another letter was typed, or the server is gone: the form still works */ }
  };
  field.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(ask, 150); });
  field.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key], count = options().length;
    if (step && !event.altKey) {
      event.preventDefault();
      if (box.hidden) ask(); else if (count) mark(at < 0 && step < 0 ? count - 1 : (at + step + count) % count);
    } else if (event.key === "Enter" && at >= 0) {
      event.preventDefault();
      options()[at].click();
    } else if (event.key === "Escape" && !box.hidden) {
      event.preventDefault();
      stop();
    }
  });
  field.addEventListener("blur", stop);
  box.addEventListener("mousedown", (event) => event.preventDefault()); // so that a click on a result arrives
}

// End of the login: two minutes before it, the page shows a warning. <body data-ends="3600" data-ending="Stay"> (in seconds)
const { ends, ending } = document.body.dataset;
const warn = (left) => setTimeout(() => {
  const stay = make("a", { href: location.href }, ending), note = make("p", { className: "note warn", role: "alert" }, stay);
  stay.addEventListener("click", async (event) => { // a request keeps the login alive, and what is typed stays
    event.preventDefault();
    const answer = await fetch(location.href).catch(() => null);
    const left = parse((await answer?.text()) ?? "").body.dataset.ends;
    if (!left || left <= 120) return location.assign(stay.href);
    note.remove();
    warn(left);
  });
  document.getElementById("main").prepend(note);
}, Math.max(Number(left) - 120, 0) * 1000);
if (ends) warn(ends);

// Forms: prevent submitting twice, and warn before typed text is lost.
document.addEventListener("submit", (event) => {
  if (event.defaultPrevented) return; // sent by script
  if (event.target.hasAttribute("data-stays")) return; // a download: the page stays open, so the form can be sent again
  event.target.dataset.sent = "1";
  for (const button of $("[type=submit]", event.target)) button.disabled = true;
});
addEventListener("pageshow", () => $("form[data-sent] [type=submit]").forEach((b) => { b.disabled = false; }));
addEventListener("beforeunload", (event) => {
  if ($("form[data-guard]:not([data-sent])").some((form) => form.dataset.dirty)) event.preventDefault();
});
document.addEventListener("change", (event) => { if (event.target.form) event.target.form.dataset.dirty = "1"; });
if ($("[data-kept]")[0]) $("form[data-guard]").forEach((form) => { form.dataset.dirty = "1"; }); // typed before the login ended

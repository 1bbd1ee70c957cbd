// Forms. Their rules are the attributes of their fields, and hold without script too.
// Takes back what was wrong with a form.
function clearFaults(form) {
  const above = form.previousElementSibling;
  if (above?.matches("[data-focus]")) above.remove();
  $("[data-focus], .wrong", form).forEach((one) => one.remove());
  for (const field of $("[aria-invalid]", form)) {
    field.removeAttribute("aria-invalid");
    field.setAttribute("aria-describedby", field.getAttribute("aria-describedby").replace(/ ?e-\S+/, ""));
  }
}

// Shows faults as the server does: beside the fields, and in a summary.
function showFaults(form, fields) {
  clearFaults(form);
  const list = make("ul", {});
  for (const field of fields) {
    const text = field.dataset.bad || field.validationMessage, id = `e-${field.id.slice(2)}`;
    field.parentElement.append(make("span", { id, className: "wrong", textContent: text }));
    field.setAttribute("aria-invalid", "true");
    field.setAttribute("aria-describedby", `${field.getAttribute("aria-describedby") ?? ""} ${id}`.trim());
    for (let box = field.closest("details"); box; box = box.parentElement.closest("details")) box.open = true;
    list.append(make("li", {}, make("a", { href: `#${field.id}`, textContent: `${field.labels[0].textContent}: ${text}` })));
  }
  const note = make("div", { className: "note bad", role: "alert", tabIndex: -1 }, make("strong", { textContent: document.body.dataset.faults }), list);
  note.dataset.focus = "";
  form.prepend(note);
  note.focus();
}

const faulty = new Map(); // the forms that are being checked, each with its faulty fields
document.addEventListener("invalid", (event) => {
  const field = event.target, { form } = field;
  if (form.method !== "post" || !field.id) return;
  event.preventDefault(); // no bubble of the browser
  if (!faulty.has(form)) setTimeout(() => { const fields = faulty.get(form); faulty.delete(form); refuse(form, fields); });
  faulty.set(form, [...faulty.get(form) ?? [], field]);
}, true);

// Saved in place: <form data-save="Saved."> is sent by script, and the rest of the page stays as it is. It is saved only if the server says so.
const partOf = (form) => {
  const { part, name } = form.elements;
  return !part ? form.getAttribute("action") : part.value === "new_flag" ? part.value : `${part.value}:${name?.value ?? ""}`;
};
const twinOf = (form, page, part = partOf(form)) => $("form[method=post]", page).find((other) => partOf(other) === part);
const send = (form) => fetch(form.action, { method: "POST", headers: { "X-Save": "1" }, body: new URLSearchParams(new FormData(form)) });
const reload = async () => parse(await (await fetch(location.pathname.replace(/\/update$/, "") + location.search)).text());

// Says beside the button what became of the form.
function tell(form, text, link) {
  $(".told", form).forEach((old) => old.remove());
  const className = text === form.dataset.save ? "told" : "told bad";
  $(".acts", form).at(-1).append(make(link ? "a" : "span", { className, textContent: text, ...link && { href: link, target: "_blank" } }));
  say(text);
}

// Puts the server's state of a form, and of what stands above it, into the page.
function renew(form, page) {
  const twin = twinOf(form, page);
  if (!twin) return;
  const [old, now] = [form, twin].map((one) => $(":scope > .note:not([role]), :scope.row > summary", one.parentElement));
  old.forEach((note) => note.remove());
  form.before(...now);
  form.replaceChildren(...twin.childNodes);
  for (const shown of $("[data-renew]", page)) document.getElementById(shown.id).replaceWith(shown);
  delete form.dataset.dirty;
}

// Shows a form as the server has refused it. What was opened stays open, and passwords, which the server never sends, stay typed.
function showRefused(form, page) {
  const faults = $("[data-focus]", page)[0], typed = $("[type=password]", form).map((field) => field.value), open = $("details", form).map((box) => box.open);
  clearFaults(form);
  renew(form, page);
  $("[type=password]", form).forEach((field, place) => { field.value = typed[place] ?? ""; });
  $("details", form).forEach((box, place) => { box.open ||= open[place]; });
  form.dataset.dirty = "1";
  if (faults) form.prepend(faults);
  faults?.focus();
}

// The server knows more rules than the attributes of these faulty fields, and names all faults at once. Without it, they are shown alone.
async function refuse(form, fields) {
  if (form.dataset.busy) return;
  form.dataset.busy = "1";
  const answer = fields.some((field) => field.validity.badInput) ? null : await send(form).catch(() => null);
  delete form.dataset.busy;
  if (answer?.headers.has("X-Saved")) return location.reload();
  const page = answer?.status === 422 && parse(await answer.text());
  if (page && twinOf(form, page)) showRefused(form, page); else showFaults(form, fields);
}

// A flag that was added gets its row before the form for the next one.
function addRow(form, page) {
  const row = twinOf(form, page, `flag:${form.elements.name.value.trim()}`);
  if (row) form.before(row.parentElement);
  const [shown, counted] = [document, page].map((one) => $("#flags > summary .count", one)[0]);
  if (shown && counted) shown.textContent = counted.textContent;
}

// A question before the form is saved.
function ask(form, page) {
  const question = $("form.ask", page)[0], cancel = $("[data-close]", question)[0];
  const dialog = make("dialog", {}, make("h2", { id: "ask", textContent: $("#ask", page)[0].textContent }), question);
  dialog.setAttribute("aria-labelledby", "ask");
  document.body.append(dialog);
  dialog.addEventListener("close", () => { dialog.remove(); $("[type=submit]", form)[0].focus(); });
  const close = (event) => { event.preventDefault(); dialog.close(); };
  cancel.addEventListener("click", close);
  question.addEventListener("submit", (event) => { close(event); save(form, question); });
  dialog.showModal();
  cancel.focus();
}

// After a new login, the forms of this page need the token of that login.
async function renewTokens() {
  const token = $("[name=csrf_token]", await reload())[0]?.value;
  const fields = $("[name=csrf_token]");
  const isNew = token && token !== fields[0].value;
  if (isNew) fields.forEach((field) => { field.value = token; });
  return isNew;
}

async function save(form, sent = form) {
  if (form.dataset.busy) return; // a second click sends nothing
  form.dataset.busy = "1";
  const attempt = () => {
    sent.elements.csrf_token.value = form.elements.csrf_token.value;
    return send(sent);
  };
  try {
    let answer = await attempt();
    if (answer.status === 403 && await renewTokens()) answer = await attempt();
    const page = answer.headers.has("X-Saved") ? null : parse(await answer.text());
    if (!page) {
      const now = await reload();
      if (partOf(form) === "new_flag") addRow(form, now);
      renew(form, now);
      $("[type=submit]", form)[0].focus({ preventScroll: true });
      tell(form, form.dataset.save);
      $("a.btn:not(.bad)", form).forEach((link) => { link.textContent = form.dataset.back; }); // there is nothing to cancel
      $("[data-kept]").forEach((note) => note.remove());
    } else if (answer.status === 401) {
      tell(form, form.dataset.ended, `/lizenzserver/login?next=${encodeURIComponent(location.pathname + location.search)}`);
    } else if ($("form.ask", page).length) {
      ask(form, page);
    } else if (twinOf(form, page)) {
      showRefused(form, page);
    } else {
      tell(form, $("h1", page)[0]?.textContent ?? form.dataset.lost);
    }
  } catch {
    tell(form, form.dataset.lost); // the network is gone: what is typed stays
  } finally {
    delete form.dataset.busy;
  }
}

document.addEventListener("submit", (event) => {
  if (event.target.dataset.save === undefined) return;
  event.preventDefault();
  clearFaults(event.target);
  save(event.target);
}, true);
document.addEventListener("input", (event) => { if (event.target.form?.dataset.save !== undefined) $(".told", event.target.form).forEach((told) => told.remove()); });

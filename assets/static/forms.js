// Saved in place: <form data-save="Saved."> is sent by script, so that the page stays as it is: where it is scrolled to, what is
// open, and what is typed in its other forms. The server's pages decide what happened; without script they are shown themselves.
const texts = document.getElementById("save-texts")?.dataset;
const partOf = (form) => {
  const { part, name } = form.elements;
  return part.value === "new_flag" ? "new_flag" : `${part.value}:${name?.value ?? ""}`;
};
const twinOf = (form, page, part = partOf(form)) => $("form[data-save]", page).find((other) => partOf(other) === part);
const parse = async (answer) => new DOMParser().parseFromString(await answer.text(), "text/html");
const pathOf = (answer) => new URL(answer.url).pathname;
const here = location.pathname.replace(/\/update$/, ""); // a form with faults that was sent without script is shown there
const isElsewhere = (answer) => answer.redirected && pathOf(answer) !== here; // without a login, nothing was saved

// Says beside the button what became of the form; `link` is the address for the text, if any.
function tell(form, text, link) {
  $(".told", form).forEach((old) => old.remove());
  const told = Object.assign(document.createElement(link ? "a" : "span"), { className: "told", textContent: text });
  if (link) Object.assign(told, { href: link, target: "_blank" });
  $(".acts", form).at(-1).append(told);
  say(text);
}

// Puts the server's state of a part into the page: its form, and the notes above it.
function renew(form, page) {
  const twin = twinOf(form, page);
  if (!twin) return;
  const [old, now] = [form, twin].map((one) => $(":scope > .note:not([role])", one.parentElement));
  old.forEach((note) => note.remove());
  form.before(...now);
  form.replaceChildren(...twin.childNodes);
  delete form.dataset.dirty;
}

// A flag that was added gets its row before the form for the next one.
function addRow(form, page) {
  const row = twinOf(form, page, `flag:${form.elements.name.value.trim()}`);
  if (row) form.before(row);
  const [shown, counted] = [document, page].map((one) => $("#flags > summary .count", one)[0]);
  if (shown && counted) shown.textContent = counted.textContent;
}

// A question before the form is saved, such as that for a higher minimum version.
function ask(form, page) {
  const dialog = document.createElement("dialog");
  dialog.setAttribute("aria-labelledby", "ask");
  const question = $("form.ask", page)[0];
  dialog.append(Object.assign(document.createElement("h2"), { id: "ask", textContent: $("#ask", page)[0].textContent }), question);
  document.body.append(dialog);
  const back = () => $("[type=submit]", form)[0].focus();
  dialog.addEventListener("close", () => { dialog.remove(); back(); });
  const close = (event) => { event.preventDefault(); dialog.close(); };
  $("[data-close]", dialog)[0].addEventListener("click", close);
  question.addEventListener("submit", (event) => { close(event); save(form, question); });
  dialog.showModal();
  $("[data-close]", dialog)[0].focus();
}

// After a new login, its forms need the token of that login.
async function renewTokens() {
  const answer = await fetch(location.href);
  const token = $("[name=csrf_token]", await parse(answer))[0]?.value;
  if (isElsewhere(answer) || !token) return;
  $("[name=csrf_token]").forEach((field) => { field.value = token; });
}

async function save(form, sent = form, again = false) {
  if (form.dataset.busy) return; // a second click sends nothing
  form.dataset.busy = "1";
  try {
    if (form.dataset.ended) await renewTokens();
    if (sent !== form) sent.elements.csrf_token.value = form.elements.csrf_token.value;
    const answer = await fetch(sent.action, { method: "POST", body: new URLSearchParams(new FormData(sent)) });
    const page = await parse(answer);
    delete form.dataset.ended;
    const isLost = answer.redirected && (isElsewhere(answer) || !new URL(answer.url).searchParams.has("at"));
    if (isLost && !isElsewhere(answer) && !again) { // a login in another tab led back here, past the form: what is saved has ?at=
      delete form.dataset.busy;
      form.dataset.ended = "1";
      return await save(form, sent, true);
    }
    if (isLost) {
      form.dataset.ended = "1";
      tell(form, texts.ended, answer.url);
    } else if (answer.ok && answer.redirected) {
      if (partOf(form) === "new_flag") addRow(form, page);
      renew(form, page);
      $("[type=submit]", form)[0].focus({ preventScroll: true });
      tell(form, form.dataset.save);
    } else if ($("form.ask", page).length) {
      ask(form, page);
    } else if (twinOf(form, page)) {
      const faults = $("[data-focus]", page)[0];
      renew(form, page);
      form.dataset.dirty = "1";
      if (faults) form.prepend(faults);
      faults?.focus();
    } else {
      tell(form, $("h1", page)[0]?.textContent ?? texts.lost);
    }
  } catch {
    tell(form, texts.lost); // the network is gone: what is typed stays
  } finally {
    delete form.dataset.busy;
  }
}

document.addEventListener("submit", (event) => {
  if (event.target.dataset.save === undefined) return;
  event.preventDefault();
  save(event.target);
}, true);
document.addEventListener("input", (event) => { if (event.target.form?.dataset.save !== undefined) $(".told", event.target.form).forEach((told) => told.remove()); });

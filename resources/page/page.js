// The page's script: it shows what the server renders and sends back what was
// chosen. It decides nothing. The session's secret lives in this closure only.
"use strict";
(() => {
  const policy = window.trustedTypes ? trustedTypes.createPolicy("osaurus", { createHTML: (s) => s }) : { createHTML: (s) => s };
  const $ = (id) => document.getElementById(id);
  const regions = ["nav", "working", "main", "sheet", "approval"];
  const last = {};
  let session = "", pane = "identity", version = 0, over = false;

  const send = (path, body, extra) => fetch(path, {
    method: "POST", cache: "no-store", credentials: "omit", redirect: "error",
    headers: Object.assign({ "Content-Type": "application/json", "X-Osaurus-Session": session }, extra),
    body: JSON.stringify(body),
  });

  const end = () => {
    over = true; session = "";
    for (const id of ["sheet", "approval"]) { if ($(id).open) $(id).close(); $(id).replaceChildren(); }
    $("nav").replaceChildren(); $("working").replaceChildren();
    const p = document.createElement("p");
    p.className = "state"; p.id = "state"; p.textContent = document.body.dataset.gone;
    $("main").replaceChildren(p);
  };

  const values = (form) => {
    const v = {};
    if (form) for (const [name, value] of new FormData(form)) v[name] = value;
    return v;
  };

  // put replaces a region that changed, and gives back what was typed, what was
  // open and where the focus was.
  const put = (id, html) => {
    if (last[id] === html) return;
    last[id] = html;
    const region = $(id), focus = document.activeElement && region.contains(document.activeElement) ? document.activeElement.id : "";
    const form = region.querySelector("form"), which = form && (form.dataset.sheet || form.dataset.approval), typed = values(form);
    const open = [...region.querySelectorAll("details[open]")].map((d) => d.dataset.open);
    region.innerHTML = policy.createHTML(html);
    const now = region.querySelector("form"), same = now && which === (now.dataset.sheet || now.dataset.approval);
    if (same) for (const e of now.elements) if (e.name in typed) { if (e.type === "radio") e.checked = e.value === typed[e.name]; else e.value = typed[e.name]; }
    for (const d of region.querySelectorAll("details")) if (open.includes(d.dataset.open)) d.open = true;
    if (region instanceof HTMLDialogElement) show(region, now, same);
    if (id === "nav") reveal();
    if (focus && $(focus) && region.contains($(focus))) $(focus).focus();
  };

  // reveal scrolls the tabs of a narrow window to the chosen one.
  const reveal = () => {
    const tabs = $("nav").querySelector("ul"), chosen = tabs && tabs.querySelector("[aria-current]");
    if (chosen) tabs.scrollLeft = chosen.offsetLeft - tabs.offsetLeft - (tabs.clientWidth - chosen.offsetWidth) / 2;
  };

  window.addEventListener("resize", reveal);

  const show = (dialog, form, same) => {
    if (!form) { if (dialog.open) dialog.close(); return; }
    if (!dialog.open) dialog.showModal();
    if (same) return;
    const first = form.dataset.approval ? form.querySelector("[data-do^=approval-deny]") : (!form.querySelector("[data-secret]") && form.querySelector("input[type=text],textarea")) || form.querySelector("h2");
    if (first) first.focus();
  };

  const draw = async (resp) => {
    if (!resp.ok) { end(); return; }
    const v = await resp.json();
    if (v.pane !== pane) return;
    version = v.version;
    for (const id of regions) put(id, v[id]);
    tick();
  };

  const look = () => send("/view", { pane }).then(draw).catch(end);

  const wait = async () => {
    while (!over) {
      try { await draw(await send("/wait", { pane, version })); } catch { end(); }
    }
  };

  const say = (text) => { $("said").textContent = text; setTimeout(() => { if ($("said").textContent === text) $("said").textContent = ""; }, 3000); };

  const digest = async (text) => new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text))).join();

  // clear empties the pasteboard after a minute if what was copied is still there.
  const clear = (sum) => setTimeout(async () => {
    try { if (await digest(await navigator.clipboard.readText()) === sum) await navigator.clipboard.writeText(""); } catch { /* the browser does not let us look */ }
  }, 60000);

  const effects = {
    copy: async (b) => { await navigator.clipboard.writeText(b.dataset.text); say(document.body.dataset.copied); },
    secret: async (b) => {
      const s = b.closest("form").querySelector("[data-secret]"), items = [...s.querySelectorAll("li")];
      const text = items.length ? items.map((i) => i.textContent).join(" ") : s.textContent;
      await navigator.clipboard.writeText(text);
      clear(await digest(text)); say(document.body.dataset.copied);
    },
    print: async () => window.print(),
    paste: async (b) => { const f = $("f-" + b.dataset.field); f.value = await navigator.clipboard.readText(); f.dispatchEvent(new Event("input", { bubbles: true })); },
    go: async (b) => { pane = b.dataset.text; look(); },
  };

  const choose = (b, via) => {
    if (b.disabled || over) return;
    const f = effects[b.dataset.effect];
    if (f) { f(b).catch(() => {}); return; }
    send("/do", { action: b.dataset.do, via, values: values(b.closest("form")) }).then((r) => { if (r.status === 403) end(); else look(); }).catch(end);
  };

  // Return is handled where it is pressed; the click a browser makes of it
  // must not pass for another key.
  let returning = false;
  document.addEventListener("keyup", (e) => { if (e.key === "Enter") returning = false; });
  document.addEventListener("keypress", (e) => { if (e.key === "Enter" && e.target.closest && e.target.closest("dialog") && !(e.target instanceof HTMLTextAreaElement)) e.preventDefault(); });

  document.addEventListener("click", (e) => {
    const b = e.target.closest("button");
    if (!b || (returning && e.detail === 0 && b.closest("dialog"))) return;
    if (b.dataset.pane) { pane = b.dataset.pane; look().then(() => $("main").focus()); return; }
    choose(b, e.detail === 0 ? "key" : "click");
  });
  document.addEventListener("submit", (e) => e.preventDefault());

  document.addEventListener("keydown", (e) => {
    const form = e.target.closest && e.target.closest("form"), approval = $("approval").querySelector("form");
    if (e.key === "Enter" && form && !(e.target instanceof HTMLTextAreaElement)) {
      e.preventDefault();
      returning = true;
      const b = e.target.closest("button") || form.querySelector("button.primary") || (form.dataset.approval ? form.querySelector("[data-do^=approval-deny]") : null);
      if (b) choose(b, "return");
    } else if (approval && e.key === approval.dataset.key && !e.ctrlKey && !e.metaKey && !e.altKey && !e.repeat) {
      choose(approval.querySelector("[data-do^=approval-allow]"), "key");
    }
  });
  for (const id of ["sheet", "approval"]) {
    $(id).addEventListener("cancel", (e) => {
      e.preventDefault();
      const all = $(id).querySelectorAll(".actions:last-of-type > button");
      if (all.length) choose(all[all.length - 1], "key");
    });
  }

  let check = 0;
  document.addEventListener("input", (e) => {
    if (e.target.dataset.live !== "true") return;
    const hint = $("n-" + e.target.name), mine = ++check;
    send("/check", { values: values(e.target.closest("form")) }).then((r) => r.json()).then((r) => { if (mine === check && hint && r.text) hint.textContent = r.text; }).catch(() => {});
  });
  window.addEventListener("focus", () => { if (session) send("/active", {}).catch(() => {}); });

  const tick = () => {
    const form = $("approval").querySelector("form");
    if (!form) return;
    const left = Math.max(0, Math.ceil((Number(form.dataset.expires) - Date.now()) / 1000)), c = form.querySelector(".countdown");
    c.textContent = c.dataset.text.replace("#", left);
  };
  setInterval(tick, 250);

  const token = location.hash.slice(1);
  history.replaceState(null, "", "/");
  if (!token) { end(); return; }
  send("/session", { token }, { "X-Osaurus-Page": "1" }).then(async (r) => {
    if (!r.ok) { end(); return; }
    session = (await r.json()).session;
    await look();
    wait();
  }).catch(end);
})();

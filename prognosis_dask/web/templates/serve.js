"use strict";
// The upload's progress, and the steps of a scan while it is worked on. Without this script the pages work too.
(() => {
  // Files and whole folders, dropped on the form or chosen; what a folder holds besides (hidden files, DICOMDIR) is left out.
  function takeFolders(form, images, chosen, tell) {
    const most = Number(form.dataset.files);
    const take = (files) => {
      const held = new DataTransfer();
      const wanted = files.filter((file) => !file.name.startsWith(".") && file.name !== "DICOMDIR");
      if (wanted.length > most) { tell("These are more files than this server takes."); return; }
      wanted.forEach((file) => held.items.add(file));
      images.files = held.files;
      chosen.textContent = wanted.length === 1 ? "1 file to send." : `${wanted.length} files to send.`;
    };
    const folder = document.createElement("input");
    folder.type = "file";
    folder.webkitdirectory = true;
    folder.addEventListener("change", () => take([...folder.files]));
    const button = document.getElementById("folder");
    button.hidden = !("webkitdirectory" in folder);
    button.addEventListener("click", () => folder.click());
    images.addEventListener("change", () => { chosen.textContent = ""; });

    const within = async (entry) => {
      if (entry.isFile) return [await new Promise((done, failed) => entry.file(done, failed))];
      const reader = entry.createReader();
      const found = [];
      for (;;) {  // a reader hands out a hundred entries at a time
        const some = await new Promise((done, failed) => reader.readEntries(done, failed));
        if (!some.length) return found;
        for (const inner of some) found.push(...await within(inner));
        if (found.length > most) return found;
      }
    };
    const carries = (event) => [...event.dataTransfer.types].includes("Files");
    form.addEventListener("dragover", (event) => { if (carries(event)) { event.preventDefault(); form.classList.add("over"); } });
    form.addEventListener("dragleave", (event) => { if (!form.contains(event.relatedTarget)) form.classList.remove("over"); });
    form.addEventListener("drop", async (event) => {
      form.classList.remove("over");
      if (!carries(event) || event.target.id === "mask") return;
      event.preventDefault();
      const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
      try {
        const dropped = await Promise.all(entries.map(within));
        take(entries.length ? dropped.flat() : [...event.dataTransfer.files]);
      } catch { tell("A dropped file could not be read; choose the files instead."); }
    });
  }

  const print = document.getElementById("print");
  if (print) { print.hidden = false; print.addEventListener("click", () => window.print()); }

  const form = document.getElementById("upload");
  if (form) {
    const problem = document.getElementById("problem");
    const tell = (text) => { problem.textContent = text; problem.hidden = false; problem.scrollIntoView({ block: "nearest" }); };
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const chosen = [...form.querySelectorAll("input[type=file]")].flatMap((input) => [...input.files]);
      const bytes = chosen.reduce((sum, file) => sum + file.size, 0);
      problem.hidden = true;
      if (bytes > Number(form.dataset.bytes)) return tell("The upload is larger than this server takes.");
      if (chosen.length > Number(form.dataset.files)) return tell("These are more files than this server takes.");
      const request = new XMLHttpRequest();
      const sent = document.getElementById("sent");
      const button = form.querySelector("button[type=submit]");
      document.getElementById("sending").hidden = false;
      button.disabled = true;
      const failed = (text) => { document.getElementById("sending").hidden = true; button.disabled = false; tell(text); };
      request.upload.addEventListener("progress", (e) => { if (e.lengthComputable) sent.value = e.loaded / e.total; });
      request.addEventListener("load", () => {
        if (request.status < 400) { window.location = request.responseURL; return; }
        const told = new DOMParser().parseFromString(request.responseText, "text/html").getElementById("message");
        failed(told ? told.textContent : "The upload was not accepted.");
      });
      request.addEventListener("error", () => failed("The upload broke off; send it again."));
      request.open("POST", form.action);
      request.send(new FormData(form));
    });
    takeFolders(form, document.getElementById("images"), document.getElementById("chosen"), tell);
  }

  const progress = document.getElementById("progress");
  if (progress) {
    const place = document.getElementById("place");
    const say = (element, text) => { if (element.textContent !== text) element.textContent = text; };
    const look = async () => {
      try {
        const answer = await fetch(progress.dataset.state, { cache: "no-store" });
        if (answer.status === 404) { window.location.reload(); return; }
        const now = await answer.json();
        if (now.state !== "waiting" && now.state !== "running") { window.location.reload(); return; }
        for (const step of now.steps) {
          const item = progress.querySelector(`[data-step="${step.name}"]`);
          if (item && item.className !== step.state) { item.className = step.state; item.querySelector(".say").textContent = step.state; }
        }
        const running = now.steps.filter((step) => step.state === "running").map((step) => step.label);
        say(place, now.place ? `Waiting: place ${now.place} in the queue.` : `At work: ${running.join(", ") || "starting"}.`);
      } catch { say(place, "The server does not answer; it may be restarting. This page keeps trying."); }
      setTimeout(look, 500);
    };
    look();
  }
})();

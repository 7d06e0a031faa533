// The tab's own behaviour: it asks for the state of the job once a second while one runs, counts tokens while a prompt is
// typed, and makes the result's buttons work. Needs nothing of the page but the tab.
(() => {
    "use strict";

    const SECOND = 1000; // ms
    const TYPING = 300; // ms without a key before tokens are counted
    const PATIENCE = 5; // times the same answer; then the server may be gone, and is asked less often
    const find = (id) => document.querySelector(`#embedding_estimate_${id}`);

    let known = null; // the tab that was asked for; Reload UI makes a new one
    let typing = 0;
    let seen = "";
    let repeated = 0;
    let uncounted = 0; // times that there was no model yet to count tokens with

    setInterval(() => {
        if (!["poll", "count", "state", "text_count"].every((name) => find(name))) return; // not all of it is there yet
        const poll = find("poll");
        if (poll !== known) {
            known = poll;
            find("count").click();
            poll.click();
        } else if (find("state").querySelector("[data-state=running]")) {
            const now = find("state").innerHTML;
            repeated = now === seen ? repeated + 1 : 0;
            seen = now;
            if (repeated < PATIENCE || repeated % PATIENCE === 0) poll.click();
        }
        if (find("text_count").textContent.includes("?") && ++uncounted % PATIENCE === 0) find("count").click();
    }, SECOND);

    document.addEventListener("input", (event) => {
        if (!event.target.closest(".embedding_estimate_counted")) return;
        clearTimeout(typing);
        typing = setTimeout(() => find("count")?.click(), TYPING);
    });

    document.addEventListener("visibilitychange", () => {
        if (!document.hidden) find("poll")?.click(); // a job may have been started elsewhere
    });

    document.addEventListener("click", (event) => {
        const button = event.target.closest?.("[data-embedding-estimate]");
        if (!button) return;
        const use = button.dataset.embeddingEstimate;
        if (use === "copy") copy(button);
        else if (use === "open") open(button.querySelector("img"));
        else if (use === "tokens") choose(button);
        else type(use, button.dataset.typed);
    });

    async function copy(button) {
        try {
            await navigator.clipboard.writeText(button.dataset.typed);
            button.textContent = "Copied";
        } catch { // pages that came over plain http may not
            getSelection().selectAllChildren(find("state").querySelector("code"));
            button.textContent = "Selected: press Ctrl-C";
        }
    }

    async function open(picture) {
        const data = await (await fetch(picture.src)).blob();
        window.open(URL.createObjectURL(data));
    }

    function choose(row) {
        for (const each of row.parentElement.children) each.classList.toggle("embedding_estimate_chosen", each === row);
        for (const box of find("tokens").querySelectorAll("input")) {
            box.value = row.dataset.tokens;
            box.dispatchEvent(new Event("input", { bubbles: true }));
        }
    }

    function type(id, typed) {
        const box = document.querySelector(`#${id} textarea`);
        const before = box.value.replace(/[\s,]+$/, "");
        box.value = before ? `${before}, ${typed}` : typed;
        box.dispatchEvent(new Event("input", { bubbles: true }));
        if (typeof switch_to_txt2img === "function") switch_to_txt2img();
    }
})();

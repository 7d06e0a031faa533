// The tab's own behaviour: it asks for the state of the job once a second while one runs, counts tokens and looks at the
// name while they are typed, takes messages away that are out of date, makes the result's buttons work, and translates
// what the WebUI cannot: lines with values in them. Needs nothing of the page but the tab.
(() => {
    "use strict";

    const SECOND = 1000; // ms
    const TYPING = 300; // ms without a key before the server is asked what it makes of the text
    const PATIENCE = 5; // times the same answer; then the server may be gone, and is asked less often
    const CHECKED = ["name", "format", "overwrite"].map((name) => `#embedding_estimate_${name}`).join();
    const GENERATED = ["state", "problems", "filled", "cut_off", "text_count", "initial_prompt_count", "name_remarks", "own_prompts_taken"];
    const OUTDATED = ["problems li", "filled p", "own_prompts_taken p"].map((said) => `#embedding_estimate_${said}`).join();
    const LONGEST = 2000; // letters of a line; more is somebody's prompt
    const find = (id) => document.querySelector(`#embedding_estimate_${id}`);

    let known = null; // the tab that was asked for; Reload UI makes a new one
    const typing = {};
    let seen = "";
    let repeated = 0;
    let uncounted = 0; // times that there was no model yet to count tokens with

    setInterval(() => {
        if (!["poll", "restore", "count", "state", "text_count"].every((name) => find(name))) return; // not yet all there
        const poll = find("poll");
        if (poll !== known) {
            known = poll;
            translateWhatComes();
            find("restore").click();
            poll.click();
        } else if (find("state").querySelector("[data-state=running]")) {
            const now = find("state").innerHTML;
            repeated = now === seen ? repeated + 1 : 0;
            seen = now;
            if (repeated < PATIENCE || repeated % PATIENCE === 0) poll.click();
        }
        const idle = !find("state").querySelector("[data-state=running]");
        if (idle && find("problems").querySelector("[data-until-idle]")) find("clear").click();
        if (find("text_count").textContent.includes("?") && ++uncounted % PATIENCE === 0) find("count").click();
    }, SECOND);

    document.addEventListener("input", ({ target }) => changed(target));

    document.addEventListener("click", ({ target }) => {
        if (target.closest?.("li")) changed(target); // of a list that opens
    });

    function changed(field) {
        if (!field.closest?.("#embedding_estimate_form, #embedding_estimate_settings")) return;
        if (document.querySelector(OUTDATED)) find("clear").click();
        if (field.closest(".embedding_estimate_counted")) soon("count");
        if (field.closest(CHECKED)) soon("check");
    }

    function soon(button) {
        clearTimeout(typing[button]);
        typing[button] = setTimeout(() => find(button)?.click(), TYPING);
    }

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
        else if (use === "style") find("save_style").click();
        else if (use === "measure_fully") find("measure_fully").click();
        else if (use === "example") find("example").click();
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

    // Localizations are the WebUI's, which translates pieces of text that are keys of its dictionary. Keys with {} are ours:
    // each stands for a value. A translation has {} for the next value, {0} or {1} for a certain one, and {t} or {0t} for one
    // that is translated in turn.

    let patterns = null;

    function translateWhatComes() {
        if (!Object.keys(window.localization ?? {}).length) return;
        const all = () => GENERATED.map(find).filter(Boolean).forEach(translate); // what is in a closed fold is not there
        all();
        for (const half of ["form", "side", "settings"]) new MutationObserver(all).observe(find(half), { childList: true, subtree: true });
    }

    function translate(part) {
        const texts = document.createTreeWalker(part, NodeFilter.SHOW_TEXT);
        while (texts.nextNode()) {
            const text = texts.currentNode.data, line = text.trim();
            const own = line && line.length <= LONGEST ? translated(line) : undefined;
            if (own !== undefined && own !== line) texts.currentNode.data = text.replace(line, () => own);
        }
    }

    function translated(line) {
        if (Object.hasOwn(window.localization, line)) return window.localization[line];
        patterns ??= Object.keys(window.localization).filter((key) => key.includes("{}")).map(pattern)
            .sort((one, other) => other.fixed - one.fixed); // the most definite first
        for (const { key, expression } of patterns) {
            const values = expression.exec(line)?.slice(1);
            if (!values) continue;
            let next = 0;
            return window.localization[key].replace(/\{(\d*)(t?)\}/g, (_, place, again) => {
                const value = values[place || next++];
                return (again && translated(value)) || value;
            });
        }
        return undefined;
    }

    function pattern(key) {
        const fixed = key.split("{}");
        const escaped = fixed.map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
        return { key, fixed: fixed.join("").length, expression: new RegExp(`^${escaped.join("([^]*?)")}$`) };
    }
})();

//! What a person sees of a picker in a real browser.

use anyhow::{Context as _, Result, ensure};
use e2e::{Browser, Client, PodSpec, eventually, root};

use crate::Shared;
use crate::routing::{chat, image, text, until_answered};

pub(crate) async fn a_person_sees_what_is_served_and_where_a_request_would_go(shared: &Shared) -> Result<()> {
    let Some(program) = e2e::browser() else {
        eprintln!("page: no real browser here: `cargo xtask test` installs Debian's Chromium as root");
        return Ok(());
    };
    let mut world = shared.world().await?;
    for pool in ["text", "vision"] {
        world.apply_pool(pool)?;
    }
    let targets = "[{name: llama, poolRef: {name: text}}, {name: qwen, poolRef: {name: vision}, modalities: {input: [Text, Image]}}]";
    world.apply_model("chat", &format!("{{modelName: chat, targetModels: {targets}}}"))?;
    world.kubelet.run(PodSpec::new("text-0", "text", &["llama=text"])).await?;
    world.kubelet.run(PodSpec::new("vision-0", "vision", &["qwen=text,image"])).await?;
    until_answered(&world, &chat("chat", &image()), "200 vision-0").await?;

    let folder = shared.folder().join("browser");
    let url = format!("http://{}/", world.picker_admin.address());
    let mut browser = Browser::open(&program, &folder, &url).await?;
    until_shown(&mut browser, "models", &["chat", "llama", "text / text-0-rank-0", "qwen", "vision / vision-0-rank-0"])
        .await?;
    until_shown(&mut browser, "servers", &["vLLM 0.32.0", "ok"]).await?;

    // What comes while it is open is seen, with why; what a client makes up is text.
    let evil = r#"<img src=x onerror="document.title='taken'">"#;
    world.http.chat(&chat("chat", &text())).await?;
    world.http.chat(&chat(evil, &text())).await?;
    until_shown(
        &mut browser,
        "decisions",
        &["chat", "text / text-0-rank-0", "404 model_not_found", "<img src=x onerror="],
    )
    .await?;
    until_shown(&mut browser, "refusals", &["model_not_found"]).await?;
    browser.evaluate("document.querySelector('#decisions details:last-of-type').open = true").await?;
    until_shown(&mut browser, "decisions", &["text → text fits text → text exactly"]).await?;

    // A request with a picture dropped on it goes to the server that takes it; by keyboard alone it goes elsewhere without one.
    let drop = r"(async () => {
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array([137, 80, 78, 71])], 'cat.png', { type: 'image/png' }));
        document.getElementById('form').dispatchEvent(new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true }));
    })()";
    browser.evaluate(drop).await?;
    until_shown(&mut browser, "dropped", &["cat.png"]).await?;
    browser.evaluate("document.getElementById('ask').click()").await?;
    until_shown(&mut browser, "answer", &["→ vision / vision-0-rank-0", "about", "ms"]).await?;
    if std::env::var_os("BLESS").is_some() {
        for scheme in ["light", "dark"] {
            browser.prefers(scheme).await?;
            let path = root().join(format!("docs/picker-page-{scheme}.png"));
            std::fs::write(&path, browser.screenshot().await?)
                .with_context(|| format!("writing {}", path.display()))?;
        }
    }
    browser.evaluate("document.getElementById('clear').click(), document.getElementById('model').focus()").await?;
    browser.press("Enter").await?;
    until_shown(&mut browser, "answer", &["→ text / text-0-rank-0"]).await?;

    // In the dark, and asked for nothing but itself.
    let back = "getComputedStyle(document.body).backgroundColor";
    browser.prefers("light").await?;
    let light = browser.evaluate(back).await?;
    browser.prefers("dark").await?;
    ensure!(browser.evaluate(back).await? != light, "dark is as light as light");
    let title = browser.evaluate("document.title").await?;
    ensure!(title == "Thalamus picker", "a client's word was taken for a page: {title}");
    let others =
        "performance.getEntriesByType('resource').filter((one) => !one.name.startsWith(location.origin)).length";
    ensure!(browser.evaluate(others).await? == 0, "another host was asked");
    ensure!(browser.errors.is_empty(), "{:?}", browser.errors);

    // Under another host's name it is nobody's.
    let port = world.picker_admin.address();
    let named = Client::new(port)
        .send(http::Method::GET, "/debug/fleet", &[("host", "evil.example")], bytes::Bytes::new())
        .await?;
    ensure!(named.status == 403 && named.text().contains("localhost"), "{}", named.shown());
    Ok(())
}

async fn until_shown(browser: &mut Browser, id: &str, words: &[&str]) -> Result<()> {
    let browser = tokio::sync::Mutex::new(browser);
    eventually(&format!("#{id} shows {words:?}"), async || {
        let text = browser.lock().await.evaluate(&format!("document.getElementById('{id}').textContent")).await?;
        let text = text.as_str().unwrap_or_default().to_owned();
        for word in words {
            ensure!(text.contains(word), "no {word:?} in {text:?}");
        }
        Ok(())
    })
    .await
}

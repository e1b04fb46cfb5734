// The site's search is a worker, and browsers start no worker from a file. There its script runs in a hidden frame instead, in which it
// finds what it would find in a worker; that it looks for `IFrameWorker` in the frame's parent is the theme's convention.
"use strict";

class IFrameWorker extends EventTarget {
  constructor(url) {
    super();
    this.frame = document.createElement("iframe");
    this.frame.hidden = true;
    document.body.append(this.frame);
    const inside = this.frame.contentWindow;
    // Written rather than left empty: some browsers replace an empty frame's page a moment later.
    inside.document.open();
    inside.document.write("<!doctype html><body></body>");
    inside.document.close();

    const load = (address) =>
      new Promise((done, failed) => {
        const script = inside.document.createElement("script");
        script.onload = done;
        script.onerror = () => failed(new Error(`${address} cannot be loaded`));
        script.src = address;
        inside.document.body.append(script);
      });
    inside.importScripts = async (...addresses) => {
      for (const address of addresses) await load(address);
    };
    inside.postMessage = (data) => {
      const event = new MessageEvent("message", { data: structuredClone(data) });
      this.dispatchEvent(event);
      this.onmessage?.(event);
    };
    this.ready = load(url).catch((error) => this.dispatchEvent(new ErrorEvent("error", { error })));
  }

  async postMessage(data) {
    const sent = structuredClone(data);
    await this.ready;
    const inside = this.frame.contentWindow;
    inside.dispatchEvent(new inside.MessageEvent("message", { data: sent }));
  }

  terminate() {
    this.frame.remove();
  }
}

if (location.protocol === "file:") {
  window.IFrameWorker = window.Worker = IFrameWorker;
}

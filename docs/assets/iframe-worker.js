// Browsers start no worker from a file. There, the search runs in a hidden frame that answers as a worker would.
// The search's script looks for the name IFrameWorker in its parent to learn where it runs.
if (location.protocol === "file:") {
  class IFrameWorker extends EventTarget {
    constructor(address) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      const inner = frame.contentWindow;
      inner.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      inner.importScripts = (...addresses) =>
        addresses.reduce((done, each) => done.then(() => IFrameWorker.load(inner, each)), Promise.resolve());
      this.ready = IFrameWorker.load(inner, String(address));
      this.inner = inner;
    }

    static load(inner, address) {
      return new Promise((loaded, failed) => {
        const script = inner.document.createElement("script");
        script.src = address;
        script.onload = loaded;
        script.onerror = () => failed(new Error(address));
        inner.document.body.append(script);
      });
    }

    postMessage(data) {
      this.ready.then(() => this.inner.dispatchEvent(new MessageEvent("message", { data })));
    }

    terminate() {
      this.inner.frameElement.remove();
    }
  }
  window.IFrameWorker = IFrameWorker;
  window.Worker = IFrameWorker;
}

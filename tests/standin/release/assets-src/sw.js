// The stand-in sends no web push; the file is here because browsers of a real instance ask for it.
self.addEventListener("install", () => self.skipWaiting());

// What a main process uses of Electron, for a program without a screen: a page with a form is a question at standard
// input, a page of a file is the program's work until a line arrives.
'use strict';
const { EventEmitter } = require('node:events');

const lines = require('node:readline').createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const windows = new Set();

const app = Object.assign(new EventEmitter(), {
  whenReady: async () => {},
  exit: (code = 0) => process.exit(code),
  quit() {
    let prevented = false;
    app.emit('will-quit', { preventDefault() { prevented = true; } });
    if (!prevented) app.exit();
  },
});

class BrowserWindow extends EventEmitter {
  webContents = new EventEmitter();

  constructor() {
    super();
    windows.add(this);
  }

  async loadURL(url) {
    console.log(decodeURIComponent(url));
    const { value, done } = await lines.next();
    if (done) return this.close();
    const key = encodeURIComponent(value);
    let prevented = false;
    const event = { preventDefault() { prevented = true; } };
    this.webContents.emit('will-navigate', event, `https://key.invalid/?key=${key}`);
    if (!prevented) throw new Error('it left the page');
  }

  async loadFile() {
    console.log('Running. Press Enter to end.');
    await lines.next();
    this.close();
  }

  close() {
    windows.delete(this);
    this.emit('closed');
    if (windows.size === 0) app.quit();
  }
}

const dialog = { showErrorBox: (title, message) => console.error(message) };

module.exports = { app, BrowserWindow, dialog };

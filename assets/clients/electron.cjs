// An Electron program's main process under a license. Save it as the `main` of your package.json, beside license.cjs
// and ca.pem; a bundler has to copy ca.pem beside its output.
'use strict';
const { app, BrowserWindow, dialog } = require('electron');
const { License } = require('./license.cjs');

let question;

/** Electron has no prompt. The window stays until the main window is open: without any window, Electron would quit. */
function ask(problem) {
  const shown = problem.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
  const page = `<title>License</title><p>${shown}</p>
    <form action="https://key.invalid/">
      <label>License key <input name="key" autofocus></label> <button>OK</button>
    </form>`;
  question ??= new BrowserWindow({ width: 480, height: 240 });
  question.loadURL(`data:text/html;charset=utf-8,${encodeURIComponent(page)}`);
  return new Promise((resolve) => {
    question.once('closed', () => resolve(null)); // canceled
    question.webContents.once('will-navigate', (event, url = event.url) => {
      event.preventDefault();
      resolve(new URL(url).searchParams.get('key'));
    });
  });
}

function stop(message) {
  dialog.showErrorBox('License', message);
  app.exit(1);
}

const license = new License({ ask, stopped: stop });

app.whenReady().then(() => license.start()).then(() => {
  new BrowserWindow().loadFile('index.html'); // your program
  question?.close();
}).catch((error) => (error.code === 'canceled' ? app.exit() : stop(error.message)));

app.on('will-quit', (event) => {
  event.preventDefault(); // until the session has ended, which frees the license at once
  license.end().then(() => app.exit());
});

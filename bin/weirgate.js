#!/usr/bin/env node
// Starts Weirgate, or says what to do on a Node that is too old for it. Old JavaScript on purpose: this file has to
// run where the rest does not. And nothing here has types: what takes them out is not even loaded where the rest is
// kept compiled.
var required = [24, 19, 0]
var actual = process.versions.node.split('.').map(Number)

function isNewEnough() {
  for (var i = 0; i < 3; i++) if (actual[i] !== required[i]) return actual[i] > required[i]
  return true
}

// Has Node keep what it compiles for the next start, which it makes twice as fast. Beside the program, and only for its
// owner: whoever can write what is kept decides what runs, so that has to be somebody who can write the program itself; a
// folder for temporary files is open to everybody. NODE_COMPILE_CACHE names another place. There is one file for each
// source, and one that does not fit its source, or is damaged, is not used.
function keepCompiled(root, fs, module) {
  if (module.getCompileCacheDir() !== undefined) return
  try {
    if (process.getuid !== undefined && fs.statSync(root).uid !== process.getuid()) return
    var folder = root + 'node_modules/.cache/weirgate'
    fs.mkdirSync(folder, { recursive: true })
    module.enableCompileCache(folder)
  } catch (error) {
    // A place that cannot be written. It runs all the same.
  }
}

if (isNewEnough()) {
  Promise.all([import('node:fs'), import('node:module'), import('node:url')]).then(function (modules) {
    var fs = modules[0]
    keepCompiled(modules[2].fileURLToPath(new URL('../', import.meta.url)), fs, modules[1])
    // A checkout has its sources; a published package has only what was built from them.
    var source = new URL('../src/main.ts', import.meta.url)
    return import(fs.existsSync(source) ? source.href : new URL('../dist/main.js', import.meta.url).href)
  })
} else {
  console.error(
    'Weirgate needs Node ' +
      required.join('.') +
      ' or newer; this is ' +
      process.versions.node +
      '.\n' +
      'In a checkout, npm brings its own:  npm ci && npm run -s weirgate -- --help\n' +
      'Elsewhere, install a newer Node: https://nodejs.org/en/download',
  )
  process.exitCode = 1
}

#!/usr/bin/env node
// Starts Weirgate, or says what to do on a Node that is too old for it. Old JavaScript on purpose: this file has to
// run where the rest does not.
var required = [24, 19, 0]
var actual = process.versions.node.split('.').map(Number)

function isNewEnough() {
  for (var i = 0; i < 3; i++) if (actual[i] !== required[i]) return actual[i] > required[i]
  return true
}

if (isNewEnough()) {
  import('node:fs').then(function (fs) {
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

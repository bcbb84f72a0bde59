// Varnish with a limit by vsthrottle, where that module is there, and varnishncsa as its log.

import { globSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { isInstalled, versionOf } from '../machine.ts'
import { type Peer, freePort, launch, serverOf } from './peer.ts'

const hasThrottle = globSync('/usr/lib{,64}/{,*/}varnish/vmods/libvmod_vsthrottle.so').length > 0
const hasLog = isInstalled('varnishncsa')

export const varnish: Peer = {
  name: 'Varnish',
  version: versionOf('varnishd', '-V', /varnish-(\d+\.\d+\.\d+)/),
  install: 'apt-get install varnish varnish-modules',
  does: [
    'memory cache',
    hasThrottle ? 'limit per address (vsthrottle)' : 'no limit (varnish-modules is not installed)',
    hasLog ? 'log by varnishncsa (combined, its CPU counted)' : 'no log (varnishncsa is not installed)',
    'counters',
  ].join(', '),
  async start(place) {
    const port = await freePort()
    mkdirSync(place.folder, { recursive: true })
    const [vcl, log] = [join(place.folder, 'bench.vcl'), join(place.folder, 'access.log')]
    const name = join(place.folder, 'varnish')
    writeFileSync(vcl, vclOf(place.originPort))
    const jail = process.getuid?.() === 0 ? ['-j', 'none'] : []
    // Others keep idle connections for a minute too. The log's reader shares the core, and loses what it has not read in time.
    const options = ['-s', 'malloc,256m', '-p', 'timeout_idle=65', '-p', 'vsl_space=512m']
    const command = ['varnishd', ...jail, '-F', '-a', `127.0.0.1:${port}`, '-f', vcl, ...options, '-n', name]
    const daemon = launch({ command: command as [string, ...string[]] }, place)
    // It waits by itself for the daemon's shared memory.
    const logging = hasLog ? [launch({ command: ['varnishncsa', '-n', name, '-a', '-w', log] }, place)] : []
    return serverOf(port, hasLog ? log : null, [daemon, ...logging])
  },
}

const vclOf = (originPort: number): string => `vcl 4.1;
${hasThrottle ? 'import vsthrottle;' : ''}
backend default { .host = "127.0.0.1"; .port = "${originPort}"; }
sub vcl_recv {
  ${hasThrottle ? 'if (vsthrottle.is_denied(client.identity, 1000000, 1s)) { return (synth(429)); }' : ''}
}
`

// HAProxy with its cache, a stick-table limit and its log: one thread.

import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { versionOf } from '../machine.ts'
import { type Peer, freePort, launch, serverOf } from './peer.ts'

export const haproxy: Peer = {
  name: 'HAProxy',
  version: versionOf('haproxy', '-v', /version (\d+\.\d+\.\d+)/),
  install: 'apt-get install haproxy',
  does: 'memory cache, stick-table limit per address, log (httplog, a write per line), counters',
  async start(place) {
    const port = await freePort()
    mkdirSync(place.folder, { recursive: true })
    const [file, log] = [join(place.folder, 'haproxy.cfg'), join(place.folder, 'access.log')]
    writeFileSync(file, configOf(port, place.originPort))
    return serverOf(port, log, [launch({ command: ['haproxy', '-db', '-f', file], stdout: log }, place)])
  },
}

const configOf = (port: number, originPort: number): string => `
global
  nbthread 1
  maxconn 8000
  log stdout format raw local0 info
defaults
  mode http
  log global
  option httplog
  timeout client 65s
  timeout server 60s
  timeout connect 2s
  http-reuse always
cache memory
  total-max-size 256
  max-object-size 1000000
  max-age 3600
frontend clients
  bind 127.0.0.1:${port} backlog 8000
  stick-table type ip size 100k expire 10s store http_req_rate(1s)
  http-request track-sc0 src
  http-request deny deny_status 429 if { sc_http_req_rate(0) gt 1000000 }
  http-request cache-use memory
  http-response cache-store memory
  default_backend origin
backend origin
  server one 127.0.0.1:${originPort}
`

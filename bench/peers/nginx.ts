// nginx with proxy_cache, limit_req and access_log, one worker: as its manual shows them, and with a log line and fields that
// say what Weirgate's do.

import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { versionOf } from '../machine.ts'
import { type Peer, freePort, launch, serverOf } from './peer.ts'

const version = versionOf('nginx', '-v', /nginx\/(\S+)/)

export const nginx: Peer = nginxPeer(
  'nginx',
  'file cache, limit_req per address, access_log (combined, a write per line)',
  (log) => `access_log ${log};`,
  'add_header X-Cache $upstream_cache_status;',
)

export const nginxSameWork: Peer = nginxPeer(
  'nginx, JSON log',
  "as nginx, but its log line has Weirgate's facts (JSON, written at least each second), and answers carry an id and a time",
  (log) => `log_format facts escape=json '${FACTS}';\n  access_log ${log} facts buffer=256k flush=1s;`,
  'add_header X-Cache $upstream_cache_status; add_header X-Request-Id $request_id; add_header X-Process-Time $request_time;',
)

const FACTS = JSON.stringify({
  timestamp: '$time_iso8601',
  level: 'INFO',
  message: 'Request completed',
  request_id: '$request_id',
  user_id: '$remote_user',
  client_ip: '$remote_addr',
  route: '$server_name',
  method: '$request_method',
  path: '$request_uri',
  status_code: '$status',
  duration_ms: '$request_time',
  upstream_ms: '$upstream_response_time',
  cache: '$upstream_cache_status',
  limit: '$limit_req_status',
  bytes: '$body_bytes_sent',
})

function nginxPeer(name: string, does: string, logOf: (file: string) => string, fields: string): Peer {
  return {
    name,
    version,
    install: 'apt-get install nginx-light',
    does,
    async start(place) {
      const port = await freePort()
      mkdirSync(place.folder, { recursive: true })
      const [file, log] = [join(place.folder, 'nginx.conf'), join(place.folder, 'access.log')]
      writeFileSync(file, configOf(port, place.originPort, place.folder, logOf(log), fields))
      const command = ['nginx', '-p', place.folder, '-c', file, '-e', join(place.folder, 'error.log')] as const
      return serverOf(port, log, [launch({ command: [...command] }, place)])
    },
  }
}

const TEMPORARY = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']

const configOf = (port: number, originPort: number, folder: string, log: string, fields: string): string => `
daemon off;
worker_processes 1;
user ${process.getuid?.() === 0 ? 'root' : 'nobody'};
pid ${folder}/nginx.pid;
events { worker_connections 8000; }
http {
  ${log}
  limit_req_zone $binary_remote_addr zone=clients:10m rate=1000000r/s;
  proxy_cache_path ${folder}/cache levels=1:2 keys_zone=cache:256m max_size=4g inactive=1h use_temp_path=off;
  ${TEMPORARY.map((name) => `${name}_temp_path ${folder}/${name};`).join('\n  ')}
  upstream origin { server 127.0.0.1:${originPort}; keepalive 64; keepalive_requests 1000000000; }
  server {
    listen 127.0.0.1:${port} backlog=8000;
    location / {
      limit_req zone=clients burst=1000000 nodelay;
      proxy_pass http://origin;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_cache cache;
      proxy_cache_valid 200 1h;
      proxy_cache_lock on;
      ${fields}
    }
  }
}
`

// nginx with proxy_cache, limit_req and access_log: one worker.

import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { versionOf } from '../machine.ts'
import { type Peer, freePort, launch, serverOf } from './peer.ts'

export const nginx: Peer = {
  name: 'nginx',
  version: versionOf('nginx', '-v', /nginx\/(\S+)/),
  install: 'apt-get install nginx-light',
  does: 'proxy_cache, limit_req per address, access_log (combined, written in pieces of 4 KiB)',
  async start(place) {
    const port = await freePort()
    mkdirSync(place.folder, { recursive: true })
    const [file, log] = [join(place.folder, 'nginx.conf'), join(place.folder, 'access.log')]
    writeFileSync(file, configOf(port, place.originPort, place.folder, log))
    const command = ['nginx', '-p', place.folder, '-c', file, '-e', join(place.folder, 'error.log')] as const
    return serverOf(port, log, [launch({ command: [...command] }, place)])
  },
}

const configOf = (port: number, originPort: number, folder: string, log: string): string => `
daemon off;
worker_processes 1;
user ${process.getuid?.() === 0 ? 'root' : 'nobody'};
pid ${folder}/nginx.pid;
events { worker_connections 8000; }
http {
  access_log ${log} combined buffer=4k flush=1s;
  limit_req_zone $binary_remote_addr zone=clients:10m rate=1000000r/s;
  proxy_cache_path ${folder}/cache levels=1:2 keys_zone=cache:256m max_size=4g inactive=1h use_temp_path=off;
  ${['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `${name}_temp_path ${folder}/${name};`).join('\n  ')}
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
      add_header X-Cache $upstream_cache_status;
    }
  }
}
`

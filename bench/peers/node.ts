// Servers of one Node process, as short as their makers' pages show them: no cache, no limit, no log.

import { createRequire } from 'node:module'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { type Peer, freePort, launch, serverOf } from './peer.ts'

/** A peer of one script, which is called with its port and the origin's. */
function scriptPeer(name: string, version: string | null, does: string, script: string): Peer {
  return {
    name,
    version,
    install: 'npm ci',
    does,
    async start(place) {
      const port = await freePort()
      const file = fileURLToPath(new URL(script, import.meta.url))
      const command = [process.execPath, file, String(port), String(place.originPort)] as const
      return serverOf(port, null, [launch({ command: [...command] }, place)])
    },
  }
}

function versionOfPackage(name: string): string | null {
  try {
    const main = createRequire(import.meta.url).resolve(name)
    const root = main.slice(0, main.lastIndexOf(`node_modules/${name}`) + `node_modules/${name}`.length)
    return (JSON.parse(readFileSync(`${root}/package.json`, 'utf8')) as { version: string }).version
  } catch {
    return null
  }
}

export const nodeHello = scriptPeer(
  'node:http',
  process.version.slice(1),
  'the same 0.7 KiB from a constant: no proxy, no cache, no limit, no log',
  'node-hello.ts',
)

export const httpProxy3 = scriptPeer(
  'http-proxy-3',
  versionOfPackage('http-proxy-3'),
  'proxy with a keep-alive agent: no cache, no limit, no log',
  'http-proxy-3.ts',
)

export const fastifyProxy = scriptPeer(
  '@fastify/http-proxy',
  versionOfPackage('@fastify/http-proxy'),
  'proxy over undici: no cache, no limit, no log',
  'fastify-proxy.ts',
)

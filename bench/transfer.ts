// Bodies that must not be buffered: 1 GiB down and 200 MiB up through a gateway process of its own, then a client that
// takes nothing for a while. Prints the growth of the gateway's resident memory (Linux: /proc) and the speed.

import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const MIB = 1024 ** 2
const DOWN_BYTES = 1024 * MIB
const UP_BYTES = 200 * MIB
const CHUNK = Buffer.alloc(64 * 1024, 120)
const MAIN = fileURLToPath(new URL('../src/main.ts', import.meta.url))

export async function benchTransfer(): Promise<void> {
  const origin = await startOrigin()
  const folder = mkdtempSync(join(tmpdir(), 'weirgate-bench-'))
  const file = join(folder, 'weirgate.yaml')
  writeFileSync(
    file,
    `listen: 127.0.0.1:0
admin: {listen: 127.0.0.1:0}
upstreams: {origin: {targets: [http://127.0.0.1:${origin.port}], timeouts: {total: 10m}}}
defaults: {upstream: origin}
routes: [{path: /*, maxBody: 1GiB}]
`,
  )
  const gateway = spawn(process.execPath, [MAIN, 'run', '-c', file], { stdio: ['ignore', 'ignore', 'pipe'] })
  try {
    const url = await new Promise<string>((resolve, reject) => {
      let said = ''
      gateway.stderr.on('data', (chunk: Buffer) => {
        said += chunk.toString()
        const address = /listens on (\S+),/.exec(said)?.[1]
        if (address !== undefined) resolve(address)
      })
      gateway.once('exit', () => reject(new Error(`the gateway ended: ${said}`)))
    })
    const pid = gateway.pid as number
    console.log(`resident when started: ${residentMib(pid).toFixed(1)} MiB`)
    // An eighth of the load: what V8 lets pile up before it collects is reached once, and is no growth after that.
    for (let i = 0; i < 16; i++) await download(url, DOWN_BYTES / 128, () => {})
    await upload(url, UP_BYTES / 8)
    const restMib = residentMib(pid)
    console.log(`resident after warm-up: ${restMib.toFixed(1)} MiB`)
    await report('1 GiB down', DOWN_BYTES, pid, restMib, (sample) => download(url, DOWN_BYTES, sample))
    await report('200 MiB up', UP_BYTES, pid, restMib, async (sample) => {
      const timer = setInterval(sample, 50)
      await upload(url, UP_BYTES)
      clearInterval(timer)
    })
  } finally {
    gateway.kill('SIGTERM')
    origin.server.close()
    rmSync(folder, { recursive: true })
  }
}

async function report(
  what: string,
  bytes: number,
  pid: number,
  restMib: number,
  run: (sample: () => void) => Promise<void>,
): Promise<void> {
  let peakMib = 0
  const startedAtMs = performance.now()
  await run(() => (peakMib = Math.max(peakMib, residentMib(pid))))
  const seconds = (performance.now() - startedAtMs) / 1000
  const growth = (peakMib - restMib).toFixed(1)
  console.log(
    `${what}: ${seconds.toFixed(1)} s, ${(bytes / MIB / seconds).toFixed(0)} MiB/s, resident grew by at most ${growth} MiB`,
  )
}

function residentMib(pid: number): number {
  const pages = Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1])
  return pages / 1024
}

function download(url: string, bytes: number, sample: () => void): Promise<void> {
  return new Promise((resolve, reject) => {
    http.get(`${url}/down/${bytes}`, { agent: false }, (response) => {
      let received = 0
      let chunks = 0
      response.on('data', (chunk: Buffer) => {
        received += chunk.length
        if (++chunks % 200 === 0) sample()
      })
      response.on('error', reject)
      response.on('end', () =>
        received === bytes ? resolve() : reject(new Error(`${received} of ${bytes} bytes came`)),
      )
    })
  })
}

function upload(url: string, bytes: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const request = http.request(`${url}/up`, { method: 'POST', agent: false }, (response) => {
      let text = ''
      response.on('data', (chunk: Buffer) => (text += chunk.toString()))
      response.on('end', () => (text === String(bytes) ? resolve() : reject(new Error(`the origin counted ${text}`))))
    })
    request.on('error', reject)
    send(request, bytes)
  })
}

/** Writes as fast as the other side takes it. */
function send(to: NodeJS.WritableStream, bytes: number): void {
  let left = bytes
  const more = () => {
    while (left > 0) {
      const chunk = left >= CHUNK.length ? CHUNK : CHUNK.subarray(0, left)
      left -= chunk.length
      if (!to.write(chunk)) {
        to.once('drain', more)
        return
      }
    }
    to.end()
  }
  more()
}

async function startOrigin(): Promise<{ server: http.Server; port: number }> {
  const server = http.createServer((request, response) => {
    const bytes = Number(request.url?.split('/')[2] ?? 0)
    if (request.method === 'GET') return send(response.writeHead(200, { 'Content-Length': bytes }), bytes)
    let received = 0
    request.on('data', (chunk: Buffer) => (received += chunk.length))
    request.on('end', () => response.end(String(received)))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return { server, port: (server.address() as AddressInfo).port }
}

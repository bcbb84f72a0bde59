// An origin as a process of its own, to be killed and stopped: `node origin.ts PORT`. What it answers names the request
// that it answers, and says where it ends, so that whoever reads it knows whose it is and whether it is whole. What it
// saw it writes to its output, at once, so that a kill loses nothing: `POST id`, `GET path`, `gone id ms` for a request
// whose client broke off, ms by the wall clock.

import { writeSync } from 'node:fs'
import http from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { END, bodyOf, stampOf } from './stamp.ts'

const MAX_AGE_SECONDS: Readonly<Record<string, number>> = { warm: 3600, kept: 1, mine: 3600, held: 3600 }
const PIECES = 10

const port = Number(process.argv[2])
const tell = (line: string): void => void writeSync(1, `${line}\n`)

const server = http.createServer((message, response) => {
  const { pathname: path, searchParams } = new URL(message.url ?? '', 'http://origin')
  const id = String(message.headers['x-id'])
  tell(message.method === 'POST' ? `POST ${id}` : `GET ${path}`)
  response.on('close', () => {
    if (!response.writableFinished) tell(`gone ${id} ${Date.now()}`)
  })
  message.resume()
  const [, kind = '', , size] = path.split('/')
  const maxAge = MAX_AGE_SECONDS[kind]
  response.setHeader('Cache-Control', maxAge === undefined ? 'no-store' : `max-age=${maxAge}`)
  const stamp = stampOf({ path, id, user: String(message.headers['x-api-key'] ?? '') })
  const waitMs = Number(searchParams.get('ms') ?? 5)
  if (kind === 'stream') void stream(response, stamp, waitMs)
  else if (kind === 'held') void hold(response, stamp, waitMs)
  else setTimeout(() => response.end(bodyOf(stamp, Number(size ?? 0))), waitMs)
})

async function stream(response: http.ServerResponse, stamp: string, ms: number): Promise<void> {
  response.setHeader('Content-Type', 'text/event-stream')
  response.write(`${stamp}\n`)
  for (let i = 0; i < PIECES && !response.destroyed; i++) {
    await sleep(ms / PIECES)
    response.write('data: x\n')
  }
  response.end(END)
}

/** Half of it now, the rest later. */
async function hold(response: http.ServerResponse, stamp: string, ms: number): Promise<void> {
  response.write(`${stamp}\n${'x'.repeat(20_000)}`)
  await sleep(ms)
  response.end(`${'x'.repeat(20_000)}${END}`)
}

// Which it says, so that whoever keeps connections to it has let them go soon after the last request.
server.keepAliveTimeout = 5000
server.listen(port, '127.0.0.1', () => process.send?.('listening'))

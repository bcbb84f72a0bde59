// An origin that sends what the path names, byte for byte: `node hostile-origin.ts PORT`. It says `GET reused` where a
// connection that had such an answer gets another request.

import { writeSync } from 'node:fs'
import net from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { HOSTILITIES } from './hostilities.ts'
import { bodyOf, stampOf } from './stamp.ts'

const MOMENT_MS = 20

const server = net.createServer((socket) => {
  let pending = ''
  let isSpoiled = false
  socket.on('error', () => {})
  socket.on('data', (chunk) => {
    pending += chunk.toString('latin1')
    const end = pending.indexOf('\r\n\r\n')
    if (end === -1) return
    const head = pending.slice(0, end)
    pending = ''
    if (isSpoiled) writeSync(1, 'GET reused\n')
    const [, name = ''] = /^GET \/hostile\/([^/]+)/.exec(head) ?? []
    const hostility = HOSTILITIES[decodeURIComponent(name)]
    if (hostility === undefined) {
      const body = bodyOf(stampOf({ path: '', id: /^x-id: (.*)$/im.exec(head)?.[1] ?? '', user: '' }), 10)
      socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n${body}`)
      return
    }
    isSpoiled = hostility.mayReuse !== true
    void send(socket, hostility)
  })
})

async function send(socket: net.Socket, { sends, lastly }: (typeof HOSTILITIES)[string]): Promise<void> {
  for (const piece of sends) {
    socket.write(piece)
    await sleep(MOMENT_MS)
  }
  if (lastly === 'end') socket.end()
  if (lastly === 'reset') socket.resetAndDestroy()
  if (lastly !== 'forever') return
  while (!socket.destroyed) {
    socket.write(sends.at(-1) ?? '')
    await sleep(1)
  }
}

server.listen(Number(process.argv[2]), '127.0.0.1', () => process.send?.('listening'))

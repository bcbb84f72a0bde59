// What a connection costs that has nothing to say: 5,000 of them, from 25 addresses, each with one answer behind it, all open.
// The growth of the memory of the server's processes, which is not what the kernel keeps for its sockets.

import { type Socket, connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { haproxy } from '../peers/haproxy.ts'
import { nginx } from '../peers/nginx.ts'
import { nodeHello } from '../peers/node.ts'
import type { Server } from '../peers/peer.ts'
import { varnish } from '../peers/varnish.ts'
import type { Row, Scenario } from '../scenario.ts'

const CONNECTIONS = 5000
/** Fewer than the gateway takes from one address unless told otherwise. */
const PER_ADDRESS = 200
/** Opened at the same time. */
const AT_ONCE = 50
const SETTLES_MS = 1500
const REQUEST = 'GET /api/v1/presentations/7 HTTP/1.1\r\nHost: gateway.test\r\n\r\n'

export const connections5k: Scenario = {
  title: 'Memory for 5,000 idle connections',
  async run(bench) {
    const rows: Row[] = []
    for (const peer of [...bench.gateways(), ...bench.present([nginx, varnish, haproxy, nodeHello])]) {
      const server = await bench.start(peer)
      // What grows with any load, and no further with more connections.
      await bench.load.run(server.port, {
        path: '/api/v1/presentations/7',
        connections: 64,
        seconds: bench.roundSeconds,
      })
      await sleep(SETTLES_MS)
      rows.push({ server: peer.name, noisy: false, figures: await idle(server) })
      await server.close()
    }
    return { rows, checks: [] }
  },
}

async function idle(server: Server): Promise<Row['figures']> {
  const before = server.residentBytes()
  const sockets: Socket[] = []
  let errors = 0
  for (let opened = 0; opened < CONNECTIONS; opened += AT_ONCE) {
    await Promise.all(
      Array.from({ length: AT_ONCE }, async (_, i) => {
        const address = `127.0.1.${1 + Math.floor((opened + i) / PER_ADDRESS)}`
        const socket = connect({ port: server.port, host: '127.0.0.1', localAddress: address })
        socket.on('error', () => socket.destroy())
        sockets.push(socket)
        if (!(await answered(socket))) errors++
      }),
    )
  }
  await sleep(SETTLES_MS)
  const after = server.residentBytes()
  // All of them still there: each is asked once more.
  for (let asked = 0; asked < CONNECTIONS; asked += AT_ONCE) {
    const alive = await Promise.all(sockets.slice(asked, asked + AT_ONCE).map(answered))
    errors += alive.filter((isAlive) => !isAlive).length
  }
  for (const socket of sockets) socket.destroy()
  return { idleConnectionBytes: (after - before) / CONNECTIONS, residentMib: after / 1024 ** 2, errors }
}

/** Sends a request; false where no answer comes. */
function answered(socket: Socket): Promise<boolean> {
  return new Promise((resolve) => {
    const done = (isAnswered: boolean): void => {
      socket.off('data', read).off('close', gone)
      resolve(isAnswered)
    }
    const read = (bytes: Buffer): void => done(bytes.toString('latin1').startsWith('HTTP/1.1 200'))
    const gone = (): void => done(false)
    socket.on('data', read).on('close', gone)
    if (socket.destroyed) gone()
    else socket.write(REQUEST)
  })
}

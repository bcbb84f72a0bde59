// The origin behind all that is measured: as cheap as Node can be, because it shares a core with the load. Any path is
// 0.7 KiB of JSON, `/large/...` 100 kB; both fresh for an hour, with a validator.

import { type AddressInfo, type Socket, createServer } from 'node:net'

export const SMALL_BYTES = 700
export const LARGE_BYTES = 100_000
export const ETAG = '"v1"'

export interface Origin {
  readonly port: number
  /** Answered so far. */
  readonly requests: number
  close(): Promise<void>
}

export async function startOrigin(): Promise<Origin> {
  const sockets = new Set<Socket>()
  const [small, large] = [jsonOf(SMALL_BYTES), jsonOf(LARGE_BYTES)]
  let requests = 0
  let date = ''
  const setDate = (): void => void (date = new Date().toUTCString())
  setDate()
  const clock = setInterval(setDate, 500)

  const answer = (head: string): string => {
    requests++
    const body = head.includes(' /large/') ? large : small
    const bytes = `Content-Type: application/json\r\nContent-Length: ${body.length}`
    const validators = `ETag: ${ETAG}\r\nCache-Control: public, max-age=3600`
    return `HTTP/1.1 200 OK\r\nDate: ${date}\r\n${bytes}\r\n${validators}\r\n\r\n${head.startsWith('HEAD') ? '' : body}`
  }
  // GET and HEAD alone come here, so a request is its head.
  const server = createServer((socket) => {
    let pending = ''
    sockets.add(socket)
    socket.setNoDelay().setEncoding('latin1')
    socket.on('close', () => sockets.delete(socket)).on('error', () => socket.destroy())
    socket.on('data', (text: string) => {
      pending += text
      let answers = ''
      for (let end = pending.indexOf('\r\n\r\n'); end !== -1; end = pending.indexOf('\r\n\r\n')) {
        answers += answer(pending.slice(0, end))
        pending = pending.slice(end + 4)
      }
      if (answers !== '') socket.write(answers, 'latin1')
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    port: (server.address() as AddressInfo).port,
    get requests() {
      return requests
    },
    close() {
      clearInterval(clock)
      const closed = new Promise<void>((resolve) => server.close(() => resolve()))
      for (const socket of sockets) socket.destroy()
      return closed
    },
  }
}

/** JSON of exactly so many bytes. */
export function jsonOf(bytes: number): string {
  const item = (n: number) => `{"id":${n},"title":"Tides at a glance","status":"published","slides":7}`
  let text = '{"items":['
  for (let n = 1; text.length + item(n).length + 20 < bytes; n++) text += `${n === 1 ? '' : ','}${item(n)}`
  const end = '],"more":""}'
  return text + end.replace('""', `"${'.'.repeat(bytes - text.length - end.length)}"`)
}

// Clients that see everything: one that speaks HTTP without a library's manners, and one that sends bytes.

import http from 'node:http'
import net from 'node:net'

export interface Answer {
  readonly status: number
  /** Flat, as on the wire. */
  readonly rawHeaders: readonly string[]
  readonly headers: http.IncomingHttpHeaders
  readonly body: Buffer
  readonly text: string
  /** Interim answers that came before it. */
  readonly interim: readonly { readonly status: number; readonly headers: http.IncomingHttpHeaders }[]
}

export interface RequestOptions {
  readonly method?: string
  readonly headers?: http.OutgoingHttpHeaders | readonly string[]
  readonly body?: string | Buffer
  readonly agent?: http.Agent
  /** Called as soon as the head is there. */
  readonly onHead?: (message: http.IncomingMessage) => void
}

/** One exchange on a connection of its own, unless an agent is given. Rejects when it breaks off. */
export function request(url: string, options: RequestOptions = {}): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const interim: { status: number; headers: http.IncomingHttpHeaders }[] = []
    const { method = 'GET', headers = {}, body, agent = false, onHead } = options
    const sent = http.request(url, { method, headers, agent })
    sent.on('information', ({ statusCode, headers: fields }) => interim.push({ status: statusCode, headers: fields }))
    sent.on('error', reject)
    sent.on('response', (message) => {
      onHead?.(message)
      const chunks: Buffer[] = []
      message.on('data', (chunk: Buffer) => chunks.push(chunk))
      message.on('error', reject)
      message.on('end', () => {
        if (!message.complete) return reject(new Error('the answer broke off'))
        const whole = Buffer.concat(chunks)
        const { statusCode = 0, rawHeaders, headers: fields } = message
        resolve({ status: statusCode, rawHeaders, headers: fields, body: whole, text: whole.toString(), interim })
      })
    })
    sent.end(body)
  })
}

export interface Conversation {
  /** Everything received so far, as latin1 text. */
  readonly received: string
  readonly closed: boolean
  /** How the other side closed: with an end, or with a reset. */
  readonly closedBy: 'end' | 'reset' | null
  send(bytes: string | Buffer): void
  /** Resolves when the kernel has taken the bytes. */
  flush(bytes: string | Buffer): Promise<void>
  /** Stops reading, and goes on. */
  pause(): void
  resume(): void
  /** Resolves when the text has come. */
  expect(text: string | RegExp): Promise<string>
  /** Resolves when the other side has closed. */
  end(): Promise<void>
  /** Ends this side: nothing more is sent. */
  finish(): void
  destroy(): void
  /** Breaks off with a reset in place of an end. */
  reset(): void
}

/** A raw connection. from: the address that it comes from. */
export async function converse(
  port: number,
  first: string | Buffer = '',
  from: string = '127.0.0.1',
): Promise<Conversation> {
  const socket = net.connect({ port, host: '127.0.0.1', localAddress: from, noDelay: true })
  let received = ''
  let closedBy: 'end' | 'reset' | null = null
  let closed = false
  const waiting = new Set<() => void>()
  const wake = () => {
    for (const check of waiting) check()
  }
  socket.on('data', (chunk) => {
    received += chunk.toString('latin1')
    wake()
  })
  socket.on('end', () => (closedBy ??= 'end'))
  socket.on('error', () => (closedBy = 'reset'))
  socket.on('close', () => {
    closed = true
    wake()
  })
  await new Promise<void>((resolve, reject) => socket.once('connect', resolve).once('error', reject))
  if (first !== '') socket.write(first)

  const when = (holds: () => boolean, what: string): Promise<void> =>
    new Promise((resolve, reject) => {
      const timer = setTimeout(() => finish(new Error(`waited for ${what}, got ${JSON.stringify(received)}`)), 10_000)
      const finish = (error?: Error) => {
        clearTimeout(timer)
        waiting.delete(check)
        if (error === undefined) resolve()
        else reject(error)
      }
      const check = () => {
        if (holds()) finish()
      }
      waiting.add(check)
      check()
    })
  return {
    get received() {
      return received
    },
    get closed() {
      return closed
    },
    get closedBy() {
      return closedBy
    },
    send: (bytes) => void socket.write(bytes),
    flush: (bytes) => new Promise((resolve) => void socket.write(bytes, () => resolve())),
    pause: () => void socket.pause(),
    resume: () => void socket.resume(),
    async expect(text) {
      const holds = () => (typeof text === 'string' ? received.includes(text) : text.test(received))
      await when(holds, String(text))
      return received
    },
    end: () => when(() => closed, 'the connection to close'),
    finish: () => void socket.end(),
    destroy: () => void socket.destroy(),
    reset: () => void socket.resetAndDestroy(),
  }
}

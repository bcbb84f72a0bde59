// Users of a site, each on its own connection from its own address, each asking for the next thing as soon as the last one
// has come. What they ask for follows from the user's number: a mix of lists and items that are popular to different degrees,
// and of decks that an AI makes. Reads answers itself, because a full client would take longer than what it measures.

import { type Socket, connect } from 'node:net'

/** Of all requests. */
const MIX = { presentations: 0.5, templates: 0.2, themes: 0.2, ai: 0.1 } as const
const PAGES = 12
const ITEMS = { presentations: 240, templates: 24, themes: 12 } as const
/** Different things that users ask the AI for. */
const DECKS = 40

export type Kind = keyof typeof MIX
export const KINDS = Object.keys(MIX) as Kind[]

export interface Asked {
  readonly kind: Kind
  readonly tookMs: number
  /** Of X-Cache; empty where there is none. */
  readonly cache: string
  /** Of X-Process-Time; NaN where there is none. */
  readonly insideMs: number
  readonly isError: boolean
}

/** A request of a user. AI requests may go to another port. */
interface Question {
  readonly kind: Kind
  readonly text: string
}

/** Runs users until the end has come; answers that come later are not counted. ports: of what serves each kind. */
export async function runUsers(
  count: number,
  end: Promise<unknown>,
  ports: Readonly<Record<Kind, number>>,
): Promise<Asked[]> {
  const asked: Asked[] = []
  const users = Array.from({ length: count }, (_, i) => createUser(i, ports))
  const running = users.map(async (user) => {
    for (;;) {
      const answer = await user.ask()
      if (answer === null) return
      asked.push(answer)
    }
  })
  await end
  for (const user of users) user.leave()
  await Promise.all(running)
  return asked
}

function createUser(number: number, ports: Readonly<Record<Kind, number>>) {
  const localAddress = `127.0.2.${1 + (number % 250)}`
  const next = createQuestions(number)
  const connections = new Map<number, Connection>()
  let hasLeft = false
  return {
    /** null once the user has left. */
    async ask(): Promise<Asked | null> {
      const { kind, text } = next()
      const port = ports[kind]
      let connection = connections.get(port)
      if (connection === undefined || !connection.isOpen) {
        connection = new Connection(port, localAddress)
        connections.set(port, connection)
      }
      const startedAtMs = performance.now()
      const answer = await connection.ask(text)
      const tookMs = performance.now() - startedAtMs
      if (hasLeft) return null
      return { kind, tookMs, ...answer }
    },
    leave(): void {
      hasLeft = true
      for (const connection of connections.values()) connection.close()
    },
  }
}

interface Answer {
  readonly cache: string
  readonly insideMs: number
  readonly isError: boolean
}

const BROKEN: Answer = { cache: '', insideMs: Number.NaN, isError: true }

/** One request at a time. */
class Connection {
  isOpen = true
  readonly #socket: Socket
  #received = ''
  #resolve: (answer: Answer) => void = () => {}

  constructor(port: number, localAddress: string) {
    this.#socket = connect({ port, host: '127.0.0.1', localAddress, noDelay: true }).setEncoding('latin1')
    this.#socket.on('data', (text: string) => this.#read(text))
    this.#socket.on('error', () => {})
    this.#socket.on('close', () => {
      this.isOpen = false
      this.#resolve(BROKEN)
    })
  }

  ask(text: string): Promise<Answer> {
    return new Promise((resolve) => {
      this.#resolve = resolve
      this.#socket.write(text, 'latin1')
    })
  }

  close(): void {
    this.#socket.destroy()
  }

  #read(text: string): void {
    this.#received += text
    const headEnd = this.#received.indexOf('\r\n\r\n')
    if (headEnd === -1) return
    const head = this.#received.slice(0, headEnd + 2)
    if (!hasWholeBody(head, this.#received, headEnd + 4)) return
    this.#received = ''
    if (/^connection: close/im.test(head)) {
      this.isOpen = false
      this.#socket.end()
    }
    this.#resolve({
      cache: /^x-cache: (\w+)/im.exec(head)?.[1] ?? '',
      insideMs: Number(/^x-process-time: ([\d.]+)ms/im.exec(head)?.[1]),
      isError: !head.startsWith('HTTP/1.1 2'),
    })
  }
}

function hasWholeBody(head: string, received: string, bodyAt: number): boolean {
  const length = /^content-length: (\d+)/im.exec(head)?.[1]
  if (length !== undefined) return received.length >= bodyAt + Number(length)
  return received.endsWith('\r\n0\r\n\r\n') || received.startsWith('0\r\n\r\n', bodyAt)
}

/** What a user asks for, one thing after the other: the same on every run. */
function createQuestions(user: number): () => Question {
  const random = createRandom(user + 1)
  /** Popular as the web is: the n-th thing is asked for 1/n as often as the first. */
  const popular = (count: number): number => Math.min(count, Math.floor((count + 1) ** random()))
  const get = (path: string): string => `GET ${path} HTTP/1.1\r\nHost: demo.test\r\nAccept: application/json\r\n\r\n`
  return () => {
    const kind = pick(random())
    switch (kind) {
      case 'presentations':
        if (random() < 0.5) return { kind, text: get(`/api/v1/presentations?page=${popular(PAGES)}&page_size=20`) }
        return { kind, text: get(`/api/v1/presentations/${popular(ITEMS.presentations)}`) }
      case 'templates':
      case 'themes':
        if (random() < 0.5) return { kind, text: get(`/api/v1/${kind}`) }
        return { kind, text: get(`/api/v1/${kind}/${popular(ITEMS[kind])}`) }
      case 'ai': {
        const body = JSON.stringify({ prompt: `Deck number ${popular(DECKS)}`, num_cards: 8, style: 'plain' })
        const fields = `Host: demo.test\r\nContent-Type: application/json\r\nContent-Length: ${body.length}`
        return { kind, text: `POST /api/v1/ai/generate HTTP/1.1\r\n${fields}\r\n\r\n${body}` }
      }
      default:
        return kind satisfies never
    }
  }
}

/** share: 0 to 1. */
function pick(share: number): Kind {
  let left = share
  for (const kind of KINDS) if ((left -= MIX[kind]) < 0) return kind
  return 'presentations'
}

/** Uniform in 0..1, the same in every run. */
function createRandom(seed: number): () => number {
  let state = seed * 0x9e3779b9
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

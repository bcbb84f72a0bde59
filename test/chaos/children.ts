// The gateway and the origins as processes of their own: started, signalled, watched through what they write and what
// Linux tells of them, and killed with whoever started them.

import { type ChildProcess, fork, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { request } from '../support/client.ts'
import { closedPort } from '../support/origin.ts'

const MAIN = fileURLToPath(new URL('../../bin/weirgate.js', import.meta.url))
const ORIGIN = new URL('./origin.ts', import.meta.url)
/** A full collection whenever it is asked for, so that memory is compared without its garbage. */
const COLLECT = "process.on('SIGUSR2',()=>{globalThis.gc();globalThis.gc()})"
const COLLECT_MS = 400

/** Kills what is still running when this process ends. */
function killAtExit(child: ChildProcess): void {
  const kill = (): void => void child.kill('SIGKILL')
  process.once('exit', kill)
  child.once('exit', () => process.off('exit', kill))
}

/** Whole lines of an output. */
function onLines(child: ChildProcess, take: (line: string) => void): void {
  let rest = ''
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    const lines = (rest + text).split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) take(line)
  })
}

export interface Seen {
  /** How often each id of a POST was seen. */
  readonly posts: Map<string, number>
  /** How often each path was asked for by another method. */
  readonly gets: Map<string, number>
  /** When a request broke off, by its id: Date.now(). */
  readonly gone: Map<string, number>
}

export class OriginProcess {
  readonly port: number
  readonly seen: Seen
  readonly #script: URL
  #child: ChildProcess | null = null

  /** Not started. */
  constructor(port: number, seen: Seen, script: URL = ORIGIN) {
    this.port = port
    this.seen = seen
    this.#script = script
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`
  }

  async start(): Promise<void> {
    // Its memory, and what compiles it, have no part in what is measured.
    const child = fork(this.#script, [String(this.port)], { stdio: ['ignore', 'pipe', 'inherit', 'ipc'] })
    this.#child = child
    killAtExit(child)
    onLines(child, (line) => this.#note(line))
    await once(child, 'message')
  }

  async kill(): Promise<void> {
    const child = this.#child
    if (child === null || child.exitCode !== null || child.signalCode !== null) return
    child.kill('SIGKILL')
    await once(child, 'exit')
  }

  signal(name: 'SIGSTOP' | 'SIGCONT'): void {
    this.#child?.kill(name)
  }

  #note(line: string): void {
    const [what, name = '', ms] = line.split(' ')
    const { posts, gets, gone } = this.seen
    if (what === 'POST') posts.set(name, (posts.get(name) ?? 0) + 1)
    else if (what === 'GET') gets.set(name, (gets.get(name) ?? 0) + 1)
    else if (what === 'gone') gone.set(name, Number(ms))
  }
}

export async function createOrigin(
  seen: Seen = { posts: new Map(), gets: new Map(), gone: new Map() },
  script?: URL,
): Promise<OriginProcess> {
  return new OriginProcess(await closedPort(), seen, script)
}

export interface Exit {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly atMs: number
}

interface UpstreamReport {
  readonly upstream: string
  readonly waiting: number
  readonly targets: readonly {
    readonly url: string
    readonly state: string
    readonly open_connections: number
    readonly in_flight: number
    readonly queued: number
  }[]
}

export class GatewayProcess {
  readonly url: string
  readonly port: number
  readonly adminUrl: string
  readonly exit: Promise<Exit>
  /** Lines of the log that are of no request: time and what they say. */
  readonly news: { readonly atMs: number; readonly text: string }[] = []
  /** What it wrote to its error output since it listens. */
  readonly complaints: string[] = []
  hasExited = false
  readonly #child: ChildProcess
  readonly #file: string

  private constructor(child: ChildProcess, file: string, url: string, adminUrl: string) {
    this.#child = child
    this.#file = file
    this.url = url
    this.port = Number(new URL(url).port)
    this.adminUrl = adminUrl
    this.exit = new Promise((resolve) => {
      child.once('exit', (code, signal) => {
        this.hasExited = true
        resolve({ code, signal, atMs: performance.now() })
      })
    })
    child.stderr?.on('data', (text: string) => this.complaints.push(text))
    onLines(child, (line) => {
      const told = JSON.parse(line) as { message: string; upstream?: string; target?: string }
      if (told.message === 'Request completed' || told.message === 'Slow request') return
      this.news.push({ atMs: performance.now(), text: `${told.message} ${told.target ?? told.upstream ?? ''}`.trim() })
    })
  }

  static async start(yaml: string): Promise<GatewayProcess> {
    const folder = mkdtempSync(join(tmpdir(), 'weirgate-chaos-'))
    const file = join(folder, 'weirgate.yaml')
    writeFileSync(file, yaml)
    const flags = ['--expose-gc', '--import', `data:text/javascript,${encodeURIComponent(COLLECT)}`]
    const child = spawn(process.execPath, [...flags, MAIN, 'run', '-c', file], { stdio: ['ignore', 'pipe', 'pipe'] })
    killAtExit(child)
    child.once('exit', () => rmSync(folder, { recursive: true, force: true }))
    const [url, adminUrl] = await new Promise<[string, string]>((resolve, reject) => {
      let said = ''
      const listen = (text: string): void => {
        said += text
        const [, address, admin] = /listens on (\S+), admin on (\S+)\n/.exec(said) ?? []
        if (address === undefined || admin === undefined) return
        child.stderr.off('data', listen)
        resolve([address, admin])
      }
      child.stderr.setEncoding('utf8').on('data', listen)
      child.once('exit', () => reject(new Error(`the gateway ended: ${said}`)))
    })
    return new GatewayProcess(child, file, url, adminUrl)
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal)
  }

  async stop(): Promise<void> {
    this.kill('SIGKILL')
    await this.exit
  }

  /** Puts another table into its file, which it watches. */
  write(yaml: string): void {
    writeFileSync(`${this.#file}.new`, yaml)
    renameSync(`${this.#file}.new`, this.#file)
  }

  async reload(): Promise<{ readonly ok: boolean; readonly text: string }> {
    const headers = { 'Content-Type': 'application/json' }
    const { status, text } = await request(`${this.adminUrl}/api/reload`, { method: 'POST', headers })
    return { ok: status === 200, text }
  }

  /** Whatever the admin port tells, on a connection that does not stay. */
  async ask(path: string): Promise<string> {
    return (await request(this.adminUrl + path)).text
  }

  async metric(name: string): Promise<number> {
    return Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(await this.ask('/metrics'))?.[1])
  }

  async upstreams(): Promise<readonly UpstreamReport[]> {
    return JSON.parse(await this.ask('/api/upstreams')) as readonly UpstreamReport[]
  }

  /** Open files and sockets. */
  get descriptors(): number {
    return readdirSync(`/proc/${this.#child.pid}/fd`).length
  }

  get residentBytes(): number {
    return Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${this.#child.pid}/status`, 'utf8'))?.[1]) * 1024
  }

  /** Without garbage. */
  async heapBytes(): Promise<number> {
    this.kill('SIGUSR2')
    await sleep(COLLECT_MS)
    return this.metric('nodejs_heap_size_used_bytes')
  }
}

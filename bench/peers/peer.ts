// A server that the suite measures: one process, or a few, on one core, with a log that goes to a file. A peer that is not
// installed is named and left out; nothing here is needed to work on Weirgate.

import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, mkdirSync, openSync, readFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { type AddressInfo, connect, createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { cpuMsOf, processTree, residentBytesOf } from '../machine.ts'

const START_MS = 20_000
const END_MS = 5000

export interface Peer {
  readonly name: string
  /** null: not installed. */
  readonly version: string | null
  /** How to get it. */
  readonly install: string
  /** What it does beside answering, for the notes. */
  readonly does: string
  start(place: Place): Promise<Server>
}

export interface Place {
  /** For its files; there, and its own. */
  readonly folder: string
  readonly originPort: number
  /** Its core; null: any, as they come. */
  readonly core: number | null
}

export interface Server {
  readonly port: number
  /** The request log; null where it writes none. */
  readonly log: string | null
  /** User and system time of all its processes so far. */
  cpuMs(): number
  residentBytes(): number
  close(): Promise<void>
}

export interface Launch {
  readonly command: readonly [string, ...string[]]
  readonly env?: NodeJS.ProcessEnv
  /** Gets what it writes on standard output. */
  readonly stdout?: string
}

/** A process, on the core of the place where that names one. */
export interface Launched {
  readonly command: string
  readonly pid: number
  /** What it has said on standard error. */
  said(): string
  hasEnded(): boolean
  end(): Promise<void>
}

export function launch({ command, env = {}, stdout }: Launch, { folder, core }: Place): Launched {
  mkdirSync(folder, { recursive: true })
  const errors = join(folder, `${command[0].split('/').at(-1)}.stderr`)
  const files = [openSync(stdout ?? '/dev/null', 'a'), openSync(errors, 'a')]
  // Else it would have the cores of its parent.
  const cores = core === null ? `0-${cpus().length - 1}` : String(core)
  const child = spawn('taskset', ['-c', cores, ...command], {
    cwd: folder,
    env: { PATH: process.env['PATH'], NODE_ENV: 'production', ...env },
    stdio: ['ignore', ...files],
  })
  for (const file of files) closeSync(file)
  const pid = child.pid as number
  const killAtExit = (): void => killTree(pid)
  process.once('exit', killAtExit)
  child.once('exit', () => process.removeListener('exit', killAtExit))
  return {
    command: command.join(' '),
    pid,
    said: () => readFileSync(errors, 'utf8'),
    hasEnded: () => child.exitCode !== null || child.signalCode !== null,
    end: () => end(child, pid),
  }
}

/** A server of one or more processes; the first one listens. Resolves when it takes connections. */
export async function serverOf(port: number, log: string | null, processes: readonly Launched[]): Promise<Server> {
  const [main] = processes as readonly [Launched, ...Launched[]]
  const trees = (): number[] => processes.flatMap(({ pid }) => processTree(pid))
  for (const endMs = performance.now() + START_MS; !(await isListening(port));) {
    if (main.hasEnded() || performance.now() > endMs) throw new Error(`${main.command} does not start: ${main.said()}`)
    await sleep(20)
  }
  return {
    port,
    log,
    cpuMs: () => cpuMsOf(trees()),
    residentBytes: () => residentBytesOf(trees()),
    async close() {
      await Promise.all(processes.map((process) => process.end()))
    },
  }
}

export async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => server.close(resolve))
  return port
}

function isListening(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1')
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false))
    socket.once('connect', () => socket.destroy())
  })
}

async function end(child: ChildProcess, pid: number): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const ended = new Promise((resolve) => child.once('exit', resolve))
  child.kill('SIGTERM')
  const timer = setTimeout(() => killTree(pid), END_MS)
  await ended
  clearTimeout(timer)
}

function killTree(pid: number): void {
  for (const one of processTree(pid)) {
    try {
      process.kill(one, 'SIGKILL')
    } catch {
      // It has ended by itself.
    }
  }
}

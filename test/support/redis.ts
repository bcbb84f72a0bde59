// Real Redis servers for tests: each on a free port of 127.0.0.1, in a folder of its own, without a file on disk, ended
// by its own handle. Also a relay that can hold, cut or delay what passes, and a server that answers as it is told.
//
// Without redis-server on PATH the suites fail with one line that says what to do; WEIRGATE_SKIP_REDIS=1 skips them.

import { type ChildProcess, execFile, spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { type AddressInfo, type Socket, connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { describe } from 'vitest'

const START_MS = 10_000

const isSkipped = process.env['WEIRGATE_SKIP_REDIS'] === '1'
const isMissing = spawnSync('redis-server', ['--version']).error !== undefined

if (isSkipped) process.stderr.write('WEIRGATE_SKIP_REDIS=1: tests that need a Redis server are SKIPPED\n')

/** `describe` for tests that start Redis. */
export const describeWithRedis: (name: string, tests: () => void) => void = isSkipped ? describe.skip : describe

export interface RedisServer {
  readonly port: number
  /** redis://127.0.0.1:port */
  readonly url: string
  /** Runs a command as an operator would; answers what redis-cli prints. */
  ask(...command: readonly string[]): Promise<string>
  /** kill -9; resolves when the process is gone. */
  kill(): Promise<void>
  /** SIGSTOP: sockets stay open, nothing answers. */
  pause(): void
  /** SIGCONT. */
  resume(): void
  /** Starts anew on the same port, empty; ends the process first where it still runs. */
  restart(): Promise<void>
  /** FLUSHALL. */
  flush(): Promise<void>
  close(): Promise<void>
}

/** Starts a server. args: more arguments for redis-server. port: null for any free one. sentinel: the file of a Sentinel.
 *  env: more variables. */
export async function startRedis(
  args: readonly string[] = [],
  port: number | null = null,
  sentinel: string | null = null,
  env: NodeJS.ProcessEnv = {},
): Promise<RedisServer> {
  if (isMissing) {
    throw new Error('no redis-server on PATH: run scripts/install-test-tools.sh, or set WEIRGATE_SKIP_REDIS=1')
  }
  const folder = mkdtempSync(join(tmpdir(), 'weirgate-redis-'))
  // Another process may take the port between its choice and its use; then the next one is tried.
  const attempts = port === null ? 5 : 1
  let chosen = 0
  let child: ChildProcess | null = null
  for (let attempt = 0; child === null && attempt < attempts; attempt++) {
    chosen = port ?? (await freePort())
    child = await launch(chosen, folder, args, sentinel, env)
  }
  if (child === null) throw new Error(`redis-server does not start on port ${chosen} with ${args.join(' ')}`)
  let running: ChildProcess = child
  const kill = async (): Promise<void> => {
    const ended = end(running)
    running.kill('SIGKILL')
    await ended
  }
  const ask = async (...command: readonly string[]): Promise<string> => {
    const { stdout } = await promisify(execFile)('redis-cli', ['-p', String(chosen), ...command])
    return stdout.trimEnd()
  }
  return {
    port: chosen,
    url: `redis://127.0.0.1:${chosen}`,
    ask,
    kill,
    pause: () => void running.kill('SIGSTOP'),
    resume: () => void running.kill('SIGCONT'),
    async restart() {
      await kill()
      const next = await launch(chosen, folder, args, sentinel, env)
      if (next === null) throw new Error(`redis-server does not start again on port ${chosen}`)
      running = next
    },
    async flush() {
      await ask('FLUSHALL')
    },
    async close() {
      await kill()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

/** A cluster of masters that share all slots, as URLs of its nodes know it. */
export interface RedisCluster {
  /** Masters first, each with an equal part of the slots in this order, then replicas. */
  readonly nodes: readonly RedisServer[]
  /** redis+cluster:// with every node. */
  readonly url: string
  slotOf(key: string): Promise<number>
  /** The master that held a key at the start. */
  ownerOf(key: string): Promise<RedisServer>
  /** Moves a slot to another node. meanwhile: runs when both serve it, each the keys that it has. */
  move(slot: number, from: RedisServer, to: RedisServer, meanwhile?: () => Promise<void>): Promise<void>
  close(): Promise<void>
}

export interface RedisClusterOptions {
  /** With slots. */
  readonly masters?: number
  /** More nodes, which hold nothing. */
  readonly spare?: number
  /** How many of the masters have one. */
  readonly replicas?: number
  /** Whether the keys of living masters are lost with a dead one, as Redis has it unless told otherwise. */
  readonly fullCoverage?: boolean
}

/** args: but for the last one, the port of the bus, which another process may take as well before it is used. */
async function startNode(args: readonly string[]): Promise<RedisServer> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await startRedis([...args, String(await freePort())])
    } catch (error) {
      if (attempt === 5) throw error
    }
  }
}

export async function startRedisCluster(options: RedisClusterOptions = {}): Promise<RedisCluster> {
  const { masters = 3, spare = 0, replicas = 0, fullCoverage = false } = options
  const args = ['--cluster-enabled', 'yes', '--cluster-node-timeout', '2000']
  args.push('--cluster-require-full-coverage', fullCoverage ? 'yes' : 'no', '--cluster-port')
  const nodes = await Promise.all(Array.from({ length: masters + spare + replicas }, () => startNode(args)))
  const share = Math.ceil(16_384 / masters)
  const owners = nodes.slice(0, masters)
  const first = nodes[0] as RedisServer
  await Promise.all(
    owners.map((node, i) =>
      node.ask('CLUSTER', 'ADDSLOTSRANGE', String(i * share), String(Math.min((i + 1) * share, 16_384) - 1)),
    ),
  )
  for (const other of nodes.slice(1)) {
    const busPort = (await other.ask('CONFIG', 'GET', 'cluster-port')).split('\n')[1] as string
    await first.ask('CLUSTER', 'MEET', '127.0.0.1', String(other.port), busPort)
  }
  for (const node of nodes) {
    await until(async () => {
      const info = await node.ask('CLUSTER', 'INFO')
      return info.includes('cluster_state:ok') && info.includes(`cluster_known_nodes:${nodes.length}`)
    }, 'the cluster to be whole')
  }
  for (const [i, replica] of nodes.slice(masters + spare).entries()) {
    await replica.ask('CLUSTER', 'REPLICATE', await (owners[i] as RedisServer).ask('CLUSTER', 'MYID'))
    await until(async () => (await replica.ask('INFO', 'replication')).includes('link_status:up'), 'a replica')
  }
  const slotOf = async (key: string): Promise<number> => Number(await first.ask('CLUSTER', 'KEYSLOT', key))
  return {
    nodes,
    url: `redis+cluster://${nodes.map((node) => `127.0.0.1:${node.port}`).join(',')}`,
    slotOf,
    ownerOf: async (key) => owners[Math.floor((await slotOf(key)) / share)] as RedisServer,
    async move(slot, from, to, meanwhile = async () => {}) {
      const [fromId, toId] = [await from.ask('CLUSTER', 'MYID'), await to.ask('CLUSTER', 'MYID')]
      await to.ask('CLUSTER', 'SETSLOT', String(slot), 'IMPORTING', fromId)
      await from.ask('CLUSTER', 'SETSLOT', String(slot), 'MIGRATING', toId)
      await meanwhile()
      const keys = await from.ask('CLUSTER', 'GETKEYSINSLOT', String(slot), '1000')
      for (const key of keys.split('\n').filter((each) => each !== '')) {
        await from.ask('MIGRATE', '127.0.0.1', String(to.port), key, '0', '5000')
      }
      for (const node of [to, from]) await node.ask('CLUSTER', 'SETSLOT', String(slot), 'NODE', toId)
    },
    async close() {
      await Promise.all(nodes.map((node) => node.close()))
    },
  }
}

/** A Sentinel that alone decides for a master, which it calls `main`. */
export async function startSentinel(masterPort: number): Promise<RedisServer> {
  const folder = mkdtempSync(join(tmpdir(), 'weirgate-sentinel-'))
  const file = join(folder, 'sentinel.conf')
  writeFileSync(file, `sentinel monitor main 127.0.0.1 ${masterPort} 1\n`)
  const sentinel = await startRedis([], null, file)
  return {
    ...sentinel,
    async close() {
      await sentinel.close()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

export interface Relay {
  readonly port: number
  /** redis://127.0.0.1:port, through the relay. */
  readonly url: string
  /** Connections accepted so far. */
  readonly accepted: number
  /** What comes from the server waits this long; 0 passes it on at once. */
  delayMs: number
  /** Nothing passes in either direction until release(); both ends stay open. */
  stall(): void
  release(): void
  /** Ends all connections: with FIN, or with RST. New ones are taken. */
  cut(how: 'end' | 'reset'): void
  /** Where new connections go. */
  target: number
  close(): Promise<void>
}

/** A TCP relay in front of a port of 127.0.0.1. */
export async function startRelay(targetPort: number): Promise<Relay> {
  const pairs = new Set<readonly [Socket, Socket]>()
  let accepted = 0
  let isStalled = false
  const server = createServer((client) => {
    accepted++
    const upstream = connect(relay.target, '127.0.0.1')
    const pair = [client, upstream] as const
    pairs.add(pair)
    for (const [from, to] of [pair, [upstream, client]] as const) {
      let waiting = 0
      let lastDueMs = 0
      from.on('data', (chunk) => {
        // What waits keeps its place: a shorter delay never lets bytes overtake others.
        const delayMs = from === upstream ? relay.delayMs : 0
        if (delayMs === 0 && waiting === 0) {
          to.write(chunk)
          return
        }
        waiting++
        const dueMs = Math.max(lastDueMs, performance.now() + delayMs)
        lastDueMs = dueMs
        setTimeout(() => {
          waiting--
          to.write(chunk)
        }, dueMs - performance.now())
      })
      from.on('error', () => to.destroy())
      from.on('close', () => {
        pairs.delete(pair)
        to.destroy()
      })
      if (isStalled) from.pause()
    }
  })
  server.listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  const { port } = server.address() as AddressInfo
  const relay: Relay = {
    port,
    url: `redis://127.0.0.1:${port}`,
    get accepted() {
      return accepted
    },
    delayMs: 0,
    target: targetPort,
    stall() {
      isStalled = true
      for (const socket of [...pairs].flat()) socket.pause()
    },
    release() {
      isStalled = false
      for (const socket of [...pairs].flat()) socket.resume()
    },
    cut(how) {
      for (const [client] of pairs) {
        if (how === 'reset') client.resetAndDestroy()
        else client.end()
      }
    },
    close() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()))
      for (const socket of [...pairs].flat()) socket.destroy()
      return closed
    },
  }
  return relay
}

export interface ScriptedRedis {
  readonly url: string
  /** Commands seen so far, names in lower case. */
  readonly seen: readonly (readonly string[])[]
  close(): Promise<void>
}

/** A server that answers each command with what `answer` gives: bytes of RESP, or null for no answer. */
export async function startScriptedRedis(
  answer: (command: readonly string[]) => string | null,
): Promise<ScriptedRedis> {
  const seen: string[][] = []
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket)).on('error', () => socket.destroy())
    let rest = ''
    socket.setEncoding('latin1').on('data', (chunk: string) => {
      rest += chunk
      for (let found = takeCommand(rest); found !== null; found = takeCommand(rest)) {
        rest = found.rest
        const [name = '', ...args] = found.command
        const command = [name.toLowerCase(), ...args]
        seen.push(command)
        const reply = answer(command)
        if (reply !== null) socket.write(reply, 'latin1')
      }
    })
  })
  server.listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  return {
    url: `redis://127.0.0.1:${(server.address() as AddressInfo).port}`,
    seen,
    close() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()))
      for (const socket of sockets) socket.destroy()
      return closed
    },
  }
}

/** The first whole command of a stream of RESP arrays. */
function takeCommand(text: string): { command: string[]; rest: string } | null {
  const head = /^\*(\d+)\r\n/.exec(text)
  if (head === null) return null
  let at = head[0].length
  const command: string[] = []
  for (let i = 0; i < Number(head[1]); i++) {
    const length = /^\$(\d+)\r\n/.exec(text.slice(at))
    if (length === null) return null
    at += length[0].length
    const end = at + Number(length[1])
    if (text.length < end + 2) return null
    command.push(text.slice(at, end))
    at = end + 2
  }
  return { command, rest: text.slice(at) }
}

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => server.close(resolve))
  return port
}

/** Resolves when the check holds; fails after a generous time. */
export async function until(check: () => boolean | Promise<boolean>, what: string): Promise<void> {
  for (const endMs = performance.now() + START_MS; performance.now() < endMs;) {
    if (await check()) return
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
  throw new Error(`waited ${START_MS} ms for ${what}`)
}

/** The process once it accepts connections; null when it ended instead. */
async function launch(
  port: number,
  folder: string,
  args: readonly string[],
  sentinel: string | null,
  env: NodeJS.ProcessEnv,
): Promise<ChildProcess | null> {
  const here = ['--port', String(port), '--bind', '127.0.0.1', '--dir', folder, '--loglevel', 'notice']
  const mode = sentinel === null ? ['--save', '', '--appendonly', 'no'] : ['--sentinel']
  const child = spawn('redis-server', [...(sentinel === null ? [] : [sentinel]), ...here, ...mode, ...args], {
    stdio: ['ignore', 'pipe', 'ignore'],
    env: { ...process.env, ...env },
  })
  const killAtExit = (): void => void child.kill('SIGKILL')
  process.once('exit', killAtExit)
  child.once('exit', () => process.removeListener('exit', killAtExit))
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      child.kill('SIGKILL')
      reject(new Error(`redis-server is not ready after ${START_MS} ms`))
    }, START_MS)
    const done = (result: ChildProcess | null): void => {
      clearTimeout(timer)
      resolve(result)
    }
    child.once('exit', () => done(null))
    let printed = ''
    child.stdout?.setEncoding('utf8').on('data', (chunk: string) => {
      printed = (printed + chunk).slice(-10_000)
      if (/Ready to accept connections|\+monitor master/.test(printed)) done(child)
    })
  })
}

function end(child: ChildProcess): Promise<unknown> {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve()
  return new Promise((resolve) => child.once('exit', resolve))
}

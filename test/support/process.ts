// Weirgate as a process of its own: its output, its signals, its end. A child that a test leaves behind is killed.

import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { onTestFinished } from 'vitest'

const ROOT = fileURLToPath(new URL('../../', import.meta.url))

export interface End {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

export interface Running {
  readonly pid: number
  readonly stdout: string
  readonly stderr: string
  /** The whole lines on stdout so far, parsed. */
  readonly log: readonly Record<string, unknown>[]
  readonly end: Promise<End>
  kill(signal: NodeJS.Signals): void
  /** Stops reading standard output, for good. */
  closeStdout(): void
  /** Resolves when the text has been printed on either stream; fails when the process ends without. */
  printed(text: RegExp): Promise<RegExpExecArray>
}

export interface SpawnOptions {
  /** Of the package; default this checkout, from its sources. */
  readonly main?: string
  readonly env?: NodeJS.ProcessEnv
  /** JavaScript that runs in the child before the program. */
  readonly preload?: string
  readonly cwd?: string
  /** No file that the child writes grows beyond this: a disk that is full. */
  readonly maxFileBytes?: number
  /** So many files and sockets it may have open. */
  readonly maxFiles?: number
}

const BOUND_MS = 15_000

/** Compiling the program takes most of the time of a short run; one run does it for those that follow. */
const COMPILED = join(ROOT, 'node_modules/.cache/weirgate-test')

/** Starts `weirgate <args>` under the Node that runs the tests, with nothing of this environment but PATH. */
export function weirgate(args: readonly string[], options: SpawnOptions = {}): Running {
  const { main = join(ROOT, 'src/main.ts'), env = {}, preload, cwd = ROOT, maxFileBytes, maxFiles } = options
  const imports = preload === undefined ? [] : ['--import', `data:text/javascript,${encodeURIComponent(preload)}`]
  const command = [process.execPath, ...imports, main, ...args]
  const limits = [
    ...(maxFileBytes === undefined ? [] : [`ulimit -f ${Math.floor(maxFileBytes / 512)}`]),
    ...(maxFiles === undefined ? [] : [`ulimit -n ${maxFiles}`]),
  ]
  const limited = ['/bin/sh', '-c', `${limits.join('; ')}; exec "$0" "$@"`]
  const [program = '', ...rest] = limits.length === 0 ? command : [...limited, ...command]
  const child = spawn(program, rest, {
    cwd,
    env: { PATH: process.env['PATH'], NODE_COMPILE_CACHE: COMPILED, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  onTestFinished(() => void child.kill('SIGKILL'))
  return watch(child)
}

/** Runs `weirgate <args>` to its end. */
export async function weirgateToEnd(
  args: readonly string[],
  options: SpawnOptions = {},
): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const running = weirgate(args, options)
  const { code } = await running.end
  return { code, stdout: running.stdout, stderr: running.stderr }
}

function watch(child: ChildProcess): Running {
  const text = { stdout: '', stderr: '' }
  const waiting = new Set<() => void>()
  const wake = (): void => {
    for (const check of waiting) check()
  }
  for (const stream of ['stdout', 'stderr'] as const) {
    child[stream]?.setEncoding('utf8').on('data', (chunk: string) => {
      text[stream] += chunk
      wake()
    })
  }
  let ended: End | null = null
  const end = new Promise<End>((resolve) => {
    child.once('close', (code, signal) => {
      ended = { code, signal }
      resolve(ended)
      wake()
    })
  })
  return {
    pid: child.pid ?? 0,
    get stdout() {
      return text.stdout
    },
    get stderr() {
      return text.stderr
    },
    get log() {
      const whole = text.stdout.slice(0, text.stdout.lastIndexOf('\n') + 1)
      return whole.split('\n').flatMap((line) => (line === '' ? [] : [JSON.parse(line) as Record<string, unknown>]))
    },
    end: withinBound(end, () => `the process to end, which printed ${JSON.stringify(text)}`),
    kill: (signal) => void child.kill(signal),
    closeStdout: () => void child.stdout?.destroy(),
    printed: (wanted) =>
      withinBound(
        new Promise((resolve, reject) => {
          const check = (): void => {
            const found = wanted.exec(text.stdout) ?? wanted.exec(text.stderr)
            if (found === null && ended === null) return
            waiting.delete(check)
            if (found !== null) resolve(found)
            else reject(new Error(`ended with ${JSON.stringify(ended)} and without ${wanted}: ${JSON.stringify(text)}`))
          }
          waiting.add(check)
          check()
        }),
        () => `${wanted}, got ${JSON.stringify(text)}`,
      ),
  }
}

async function withinBound<T>(promise: Promise<T>, what: () => string): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${BOUND_MS} ms for ${what()}`)), BOUND_MS)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}

export interface ConfigFile {
  readonly path: string
  readonly folder: string
  /** Replaces the file as editors and deployments do: a new one is renamed over it. */
  replace(yaml: string): void
}

/** A route table in a folder of its own, removed after the test. */
export function configFile(yaml: string): ConfigFile {
  const folder = mkdtempSync(join(tmpdir(), 'weirgate-test-'))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  const path = join(folder, 'gateway.yaml')
  writeFileSync(path, yaml)
  return {
    path,
    folder,
    replace(next) {
      writeFileSync(`${path}.new`, next)
      renameSync(`${path}.new`, path)
    },
  }
}

export interface RunningGateway extends Running {
  readonly url: string
  readonly port: number
  readonly adminUrl: string
  readonly file: ConfigFile
}

const PORTS = 'listen: {address: 127.0.0.1:0}\nadmin: {listen: 127.0.0.1:0}\n'

/** `weirgate run` on free ports; resolves when it says that it listens. yaml: all but listen and admin, or with them. */
export async function runGateway(yaml: string, options: SpawnOptions = {}): Promise<RunningGateway> {
  const file = configFile(withPorts(yaml))
  const running = weirgate(['run', '-c', file.path], options)
  const [, url = '', port = '', adminUrl = ''] = await running.printed(
    /listens on (http:\/\/127\.0\.0\.1:(\d+)), admin on (http:\S+)\n/,
  )
  return Object.assign(running, { url, port: Number(port), adminUrl, file })
}

/** The table with free ports, unless it names its own. */
export const withPorts = (yaml: string): string => (/^listen:/m.test(yaml) ? yaml : PORTS + yaml)

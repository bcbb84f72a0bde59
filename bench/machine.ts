// What Linux tells of the machine and of processes, from /proc: cores, load, and the CPU time and memory of a process with
// all that it has started. The server that is measured has one core for itself; whoever asks it, and the origin, the others.

import { spawnSync } from 'node:child_process'
import { readFileSync, readdirSync } from 'node:fs'
import { cpus, loadavg } from 'node:os'

/** Of one tick of utime and stime: 100 a second on all that Linux runs on. */
const TICK_MS = 10

export interface Cores {
  /** For the server. */
  readonly server: number
  /** For the load and the origin, as taskset takes it. */
  readonly load: string
}

/** The cores of this process, shared out. Throws in words where this machine cannot run the suite. */
export function shareCores(): Cores {
  if (process.platform !== 'linux') throw new Error('The suite reads /proc, so it needs Linux.')
  if (!isInstalled('taskset')) throw new Error('The suite needs taskset (Debian: apt-get install util-linux).')
  const allowed = expandList(/Cpus_allowed_list:\s+(\S+)/.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '')
  const [server, ...others] = allowed
  if (server === undefined || others.length === 0) throw new Error('The suite needs two cores.')
  return { server, load: others.join(',') }
}

/** Binds all threads of this process, and what it starts from now on. */
export function pinSelf(cores: string): void {
  const { status, stderr } = spawnSync('taskset', ['-acp', cores, String(process.pid)], { encoding: 'utf8' })
  if (status !== 0) throw new Error(`taskset: ${stderr}`)
}

/** `0-2,4` as numbers. */
export function expandList(list: string): number[] {
  return list.split(',').flatMap((part) => {
    const [first = Number.NaN, last = first] = part.split('-').map(Number)
    return Array.from({ length: last - first + 1 }, (_, i) => first + i)
  })
}

export function isInstalled(program: string): boolean {
  return spawnSync('sh', ['-c', `command -v ${program}`]).status === 0
}

/** What a program prints about its version, or null where it is not installed. */
export function versionOf(program: string, flag: string, pattern: RegExp): string | null {
  const { stdout, stderr, error } = spawnSync(program, [flag], { encoding: 'utf8' })
  if (error !== undefined) return null
  return pattern.exec(stdout + stderr)?.[1] ?? 'of unknown version'
}

/** `2 x Intel Xeon, Linux 6.1` */
export function describeMachine(): string {
  const list = cpus()
  const kernel = readFileSync('/proc/sys/kernel/osrelease', 'utf8').trim()
  return `${list.length} x ${list[0]?.model ?? 'an unknown core'}, Linux ${kernel}, Node ${process.version}`
}

/** Of the last minute. */
export const loadAverage = (): number => loadavg()[0] as number

/** The process and all below it. */
export function processTree(root: number): number[] {
  const children = new Map<number, number[]>()
  for (const entry of readdirSync('/proc')) {
    const pid = Number(entry)
    const parent = Number.isInteger(pid) ? statOf(pid)?.parent : undefined
    if (parent !== undefined) children.set(parent, [...(children.get(parent) ?? []), pid])
  }
  const tree = [root]
  for (const pid of tree) tree.push(...(children.get(pid) ?? []))
  return tree
}

/** User and system time of processes so far. What has ended in between is not counted. */
export function cpuMsOf(pids: readonly number[]): number {
  return pids.reduce((sum, pid) => sum + (statOf(pid)?.ticks ?? 0) * TICK_MS, 0)
}

/** Memory that processes have in RAM. */
export function residentBytesOf(pids: readonly number[]): number {
  return pids.reduce((sum, pid) => sum + residentBytes(pid), 0)
}

function residentBytes(pid: number): number {
  return Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0) * 1024
}

/** undefined where it has ended. */
function statOf(pid: number): { parent: number; ticks: number } | undefined {
  let stat: string
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  } catch {
    return undefined
  }
  // The name of the program, in brackets, may hold anything.
  const [, parent, , , , , , , , , , userTicks, systemTicks] = stat
    .slice(stat.lastIndexOf(')') + 2)
    .split(' ')
    .map(Number)
  return { parent: parent as number, ticks: (userTicks as number) + (systemTicks as number) }
}

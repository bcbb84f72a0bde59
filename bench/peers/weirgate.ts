// The gateway as its package and its image have it: built, `weirgate run -c FILE` under the Node that npm brings, NODE_ENV as
// in the image, the log on standard output, which goes to a file. With a profile from its sources, which have more names.

import { spawnSync } from 'node:child_process'
import { cpSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { basename, join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { type Launched, type Peer, type Place, type Server, launch, serverOf } from './peer.ts'

export const CHECKOUT = fileURLToPath(new URL('../../', import.meta.url))

/** A limit that is checked for each request and never reached. */
export const LIMITS = 'per-client: {limit: 1000000000, window: 1m, key: ip}'

/** All that the suite compares: memory cache, a limit per client, one log line per request, metrics. */
export const EVERYTHING_ON = `
cache: {memory: 256MiB}
limits: {${LIMITS}}
defaults: {upstream: origin, limits: [per-client]}
routes: [{path: /*, cache: {ttl: 1h}}]
`

export interface GatewayOptions {
  readonly name?: string
  /** A checkout, its packages installed. */
  readonly root?: string
  /** The route table, without ports and upstreams. */
  readonly yaml?: string
  /** A folder that gets a CPU profile when the gateway ends. */
  readonly profileInto?: string
  readonly profileName?: string
}

export function gateway(options: GatewayOptions = {}): Peer {
  const { name = 'weirgate', root = CHECKOUT, yaml = EVERYTHING_ON, profileInto, profileName = name } = options
  return {
    name,
    version: versionOfCheckout(root),
    install: 'npm ci',
    does: 'memory cache, limit per address, JSON log line per request (written at least each second), metrics',
    async start(place) {
      const file = `${profileName.replaceAll(/\W+/g, '-')}.cpuprofile`
      const profile = ['--cpu-prof', `--cpu-prof-dir=${profileInto}`, `--cpu-prof-name=${file}`]
      return startGateway({
        root: profileInto === undefined ? built(root, place) : root,
        yaml: gatewayYaml(yaml, place),
        place,
        nodeOptions: profileInto === undefined ? [] : profile,
      })
    },
  }
}

/** `0.1.0 1a2b3c4`, with `+` where the checkout has changes of its own. */
export function versionOfCheckout(root: string): string {
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string }
  const git = (...args: string[]) => spawnSync('git', ['-C', root, ...args], { encoding: 'utf8' }).stdout?.trim() ?? ''
  const changed = git('status', '--porcelain', '--', 'src') === '' ? '' : '+'
  return `${version} ${git('rev-parse', '--short', 'HEAD')}${changed}`.trim()
}

/** A second checkout beside this one. */
export const otherCheckout = (folder: string): { readonly name: string; readonly root: string } => ({
  name: `weirgate (${basename(resolve(folder))})`,
  root: resolve(folder),
})

/** What has been built in this run, by its checkout. */
const builds = new Map<string, string>()

function built(root: string, place: Place): string {
  const known = builds.get(root)
  if (known !== undefined) return known
  const folder = buildInto(join(place.folder, 'built'), root)
  builds.set(root, folder)
  return folder
}

/** Builds a checkout into a folder that has what the package and the image have. The folder. */
export function buildInto(folder: string, root = CHECKOUT): string {
  mkdirSync(folder, { recursive: true })
  for (const part of ['bin', 'package.json']) cpSync(join(root, part), join(folder, part), { recursive: true })
  symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'))
  const rolldown = join(root, 'node_modules/.bin/rolldown')
  const { status, stderr } = spawnSync(rolldown, ['-c', '--dir', join(folder, 'dist')], {
    cwd: root,
    encoding: 'utf8',
  })
  if (status !== 0) throw new Error(`it does not build: ${stderr}`)
  return folder
}

export const gatewayYaml = (yaml: string, { originPort }: Place): string => `
listen: {address: 127.0.0.1:0}
admin: {listen: 127.0.0.1:0}
upstreams: {origin: {targets: [http://127.0.0.1:${originPort}], connections: 64}}
${yaml}`

export interface GatewayStart {
  readonly root: string
  /** The program, in root or anywhere. */
  readonly main?: string
  readonly yaml: string
  readonly place: Place
  readonly nodeOptions?: readonly string[]
  readonly env?: NodeJS.ProcessEnv
}

/** Resolves when it says that it listens. */
export async function startGateway(start: GatewayStart): Promise<Server & { readonly adminPort: number }> {
  const { root, yaml, place, nodeOptions = [], env = {} } = start
  mkdirSync(place.folder, { recursive: true })
  const [config, log] = [join(place.folder, 'weirgate.yaml'), join(place.folder, 'access.log')]
  writeFileSync(config, yaml)
  const command = [process.execPath, ...nodeOptions, resolve(root, 'bin/weirgate.js'), 'run', '-c', config] as const
  const node = launch({ command: [...command], stdout: log, env }, place)
  const [, port, adminPort] = await saidBy(node, /listens on http:\/\/\S+:(\d+), admin on http:\/\/\S+:(\d+)/)
  return { ...(await serverOf(Number(port), log, [node])), adminPort: Number(adminPort) }
}

async function saidBy(process: Launched, pattern: RegExp): Promise<readonly (string | undefined)[]> {
  for (;;) {
    const found = pattern.exec(process.said())
    if (found !== null) return found
    if (process.hasEnded()) throw new Error(`the gateway ended: ${process.said()}`)
    await sleep(5)
  }
}

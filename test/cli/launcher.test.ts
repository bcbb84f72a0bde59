// bin/weirgate.js: what an installed `weirgate` runs, on a Node that is new enough and on one that is not.

import { spawnSync } from 'node:child_process'
import {
  accessSync,
  chownSync,
  constants,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it, onTestFinished } from 'vitest'

const LAUNCHER = fileURLToPath(new URL('../../bin/weirgate.js', import.meta.url))
const NEEDED = [24, 18, 1] as const

function isTooOld(version: string): boolean {
  const parts = version.split('.').map(Number)
  const i = NEEDED.findIndex((needed, at) => parts[at] !== needed)
  return i !== -1 && (parts[i] ?? 0) < (NEEDED[i] as number)
}

/** A Node of this machine's own, apart from the one that npm brought, where it is too old; null otherwise. */
function oldNode(): { path: string; version: string } | null {
  const folders = (process.env['PATH'] ?? '').split(delimiter).filter((folder) => !folder.includes('node_modules'))
  for (const folder of folders) {
    const path = join(folder, 'node')
    try {
      accessSync(path, constants.X_OK)
    } catch {
      continue
    }
    const version = spawnSync(path, ['-p', 'process.versions.node']).stdout.toString().trim()
    return isTooOld(version) ? { path, version } : null
  }
  return null
}

const launch = (node: string, ...args: string[]) => {
  const { status, stdout, stderr } = spawnSync(node, [LAUNCHER, ...args], { encoding: 'utf8', timeout: 15_000 })
  return { status, stdout, stderr }
}

describe('the launcher', () => {
  it('runs the program, hands over its arguments and ends as it does', () => {
    expect(launch(process.execPath, '--version')).toMatchObject({
      status: 0,
      stdout: expect.stringMatching(/^\d+\.\d+\.\d+\n$/),
    })
    expect(launch(process.execPath, 'check', '--nonsense')).toMatchObject({ status: 2, stdout: '' })
  })

  /** A package whose program prints where it is kept compiled, and only that. */
  function installed() {
    const root = mkdtempSync(join(tmpdir(), 'weirgate-'))
    onTestFinished(() => rmSync(root, { recursive: true }))
    cpSync(LAUNCHER, join(root, 'bin/weirgate.js'))
    writeFileSync(join(root, 'package.json'), '{"type": "module"}')
    mkdirSync(join(root, 'dist'))
    const program = "import m from 'node:module'\nconsole.log(m.getCompileCacheDir() ?? 'nowhere')\n"
    writeFileSync(join(root, 'dist/main.js'), program)
    const keptIn = (env: NodeJS.ProcessEnv = {}): string => {
      const { stdout, stderr } = spawnSync(process.execPath, [join(root, 'bin/weirgate.js')], { encoding: 'utf8', env })
      expect(stderr).toBe('')
      return stdout.trim()
    }
    return { root, keptIn }
  }

  it('keeps what Node compiles beside the program, or where NODE_COMPILE_CACHE says', () => {
    const { root, keptIn } = installed()
    expect(keptIn()).toContain(join(root, 'node_modules/.cache/weirgate/'))
    const elsewhere = join(root, 'elsewhere')
    expect(keptIn({ NODE_COMPILE_CACHE: elsewhere })).toContain(`${elsewhere}/`)
  })

  it('runs where nothing can be kept', () => {
    const { root, keptIn } = installed()
    writeFileSync(join(root, 'node_modules'), 'a file in the way')
    expect(keptIn()).toBe('nowhere')
  })

  it.skipIf(process.getuid?.() !== 0)(
    'keeps nothing in the place of somebody else (skipped unless run as root)',
    () => {
      const { root, keptIn } = installed()
      chownSync(root, 1, 1)
      expect(keptIn()).toBe('nowhere')
      expect(existsSync(join(root, 'node_modules'))).toBe(false)
    },
  )

  const old = oldNode()
  it.skipIf(old === null)(
    'says on a Node that is too old which it needs and how to get it, and ends with 1 (skipped where there is no such Node)',
    () => {
      const { status, stdout, stderr } = launch(old?.path ?? '', 'run')
      expect([status, stdout]).toEqual([1, ''])
      expect(stderr).toContain(`Weirgate needs Node 24.19.0 or newer; this is ${old?.version}.`)
      expect(stderr).toContain('npm ci')
      expect(stderr).toContain('https://nodejs.org/')
    },
  )
})

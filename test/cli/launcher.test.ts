// bin/weirgate.js: what an installed `weirgate` runs, on a Node that is new enough and on one that is not.

import { spawnSync } from 'node:child_process'
import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'

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

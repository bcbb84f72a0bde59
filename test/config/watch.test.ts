import { EventEmitter, once } from 'node:events'
import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, unlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { watchConfig } from '../../src/config/watch.ts'

const WAIT_MS = 10_000

let folder = ''
let file = ''
let changes = 0
let generation = 0
const watchers: { close(): void }[] = []
const events = new EventEmitter()

/** Watches a file, and beside it one by which `settled` knows that earlier events have been looked at. */
function start(path = file): void {
  watchers.push(
    watchConfig(path, () => {
      changes++
      events.emit('change')
    }),
    watchConfig(join(path, '..', 'control'), () => events.emit('control')),
  )
}

async function tells(event: string, action: () => void): Promise<void> {
  const told = once(events, event, { signal: AbortSignal.timeout(WAIT_MS) })
  action()
  await told
}

/** Does something to the file and waits until a change of it is told. */
const tellsOf = (action: () => void): Promise<void> => tells('change', action)

/** Waits until everything that was done before has been looked at. */
const settled = (): Promise<void> =>
  tells('control', () => writeFileSync(join(folder, 'control'), `generation ${++generation}`))

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'weirgate-watch-'))
  file = join(folder, 'w.yaml')
  changes = 0
  writeFileSync(file, 'one')
})

afterEach(() => {
  for (const watcher of watchers.splice(0)) watcher.close()
  rmSync(folder, { recursive: true, force: true })
})

describe('watchConfig', () => {
  it('tells of a file written in place', async () => {
    start()
    await tellsOf(() => writeFileSync(file, 'two'))
    expect(changes).toBe(1)
  })

  it('tells of each atomic replacement, not of the first only', async () => {
    start()
    for (const text of ['two', 'three', 'four']) {
      await tellsOf(() => {
        writeFileSync(`${file}.new`, text)
        renameSync(`${file}.new`, file)
      })
    }
    expect(changes).toBe(3)
  })

  it('tells of the symlink swap of a Kubernetes volume', async () => {
    const versions = { v1: 'one', v2: 'two' }
    for (const [version, text] of Object.entries(versions)) {
      mkdirSync(join(folder, version))
      writeFileSync(join(folder, version, 'mounted.yaml'), text)
    }
    symlinkSync('v1', join(folder, '..data'))
    symlinkSync('..data/mounted.yaml', join(folder, 'mounted.yaml'))
    start(join(folder, 'mounted.yaml'))
    await tellsOf(() => {
      symlinkSync('v2', join(folder, '..data_tmp'))
      renameSync(join(folder, '..data_tmp'), join(folder, '..data'))
    })
    expect(changes).toBe(1)
  })

  it('tells once of a change in many steps', async () => {
    start()
    for (let i = 0; i < 20; i++) writeFileSync(file, `step ${i}`)
    await settled()
    expect(changes).toBe(1)
  })

  it('says nothing of the same content, nor of the file beside it', async () => {
    start()
    utimesSync(file, new Date(), new Date())
    await settled()
    writeFileSync(file, 'one')
    await settled()
    writeFileSync(join(folder, 'other.yaml'), 'x')
    await settled()
    expect(changes).toBe(0)
  })

  it('says nothing of a moment of absence, and tells what came after it', async () => {
    start()
    unlinkSync(file)
    await settled()
    writeFileSync(file, 'one')
    await settled()
    expect(changes).toBe(0)
    unlinkSync(file)
    await settled()
    await tellsOf(() => writeFileSync(file, 'two'))
    expect(changes).toBe(1)
  })

  it('tells of a file that was not there at the start', async () => {
    unlinkSync(file)
    start()
    await tellsOf(() => writeFileSync(file, 'one'))
    expect(changes).toBe(1)
  })

  it('says nothing after it was closed, of a change just before it neither', async () => {
    start()
    writeFileSync(file, 'two')
    for (const watcher of watchers.splice(0)) watcher.close()
    start()
    writeFileSync(file, 'three')
    await settled()
    expect(changes).toBe(1)
  })

  it('does not throw where the folder is not there, or goes', () => {
    expect(() => watchConfig(join(folder, 'none', 'w.yaml'), () => {}).close()).not.toThrow()
    start()
    rmSync(folder, { recursive: true })
    expect(() => {
      for (const watcher of watchers.splice(0)) watcher.close()
    }).not.toThrow()
  })
})

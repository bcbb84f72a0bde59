// What `npm run build` makes, which is what a package and the image have in place of the sources: all that the program finds
// by where it stands (its version, the demo's table, the disk tier's thread, packages that only some tables need) is there.

import { spawnSync } from 'node:child_process'
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { request } from '../support/client.ts'
import { closeAfterEach } from '../support/closing.ts'
import { type Origin, startOrigin } from '../support/origin.ts'
import { runGateway, weirgate, weirgateToEnd } from '../support/process.ts'

const CHECKOUT = fileURLToPath(new URL('../../', import.meta.url))

const closing = closeAfterEach()

describe('what is built', () => {
  const root = mkdtempSync(join(tmpdir(), 'weirgate-built-'))
  const main = join(root, 'dist/main.js')

  beforeAll(() => {
    for (const part of ['package.json', 'config']) cpSync(join(CHECKOUT, part), join(root, part), { recursive: true })
    symlinkSync(join(CHECKOUT, 'node_modules'), join(root, 'node_modules'))
    const build = [join(CHECKOUT, 'node_modules/rolldown/bin/cli.mjs'), '-c', '--dir', join(root, 'dist')]
    const { status, stdout, stderr } = spawnSync(process.execPath, build, { cwd: CHECKOUT, encoding: 'utf8' })
    if (status !== 0) throw new Error(`it does not build: ${stdout}${stderr}`)
  })
  afterAll(() => rmSync(root, { recursive: true }))

  it('knows its version, and every command', async () => {
    const { version } = JSON.parse(readFileSync(join(CHECKOUT, 'package.json'), 'utf8')) as { version: string }
    expect(await weirgateToEnd(['--version'], { main })).toEqual({ code: 0, stdout: `${version}\n`, stderr: '' })
    expect(await weirgateToEnd(['schema'], { main })).toEqual(await weirgateToEnd(['schema']))
    const help = await weirgateToEnd(['--help'], { main })
    expect(help).toEqual(await weirgateToEnd(['--help']))
    expect(help.code).toBe(0)
  })

  it.each(['syntax', 'ten-errors'])('complains of a table in the same words: %s', async (name) => {
    const check = ['check', '-c', join(CHECKOUT, `test/golden/config/${name}.yaml`)]
    const complaints = await weirgateToEnd(check, { main })
    expect(complaints).toEqual(await weirgateToEnd(check))
    expect(complaints.code).toBe(2)
  })

  /** What a gateway that starts for it makes of a request. */
  async function answerUnder(options: string, { url }: Origin) {
    const routes = `upstreams: {app: {targets: ["${url}"]}}\nroutes: [{path: /*, upstream: app, cache: {ttl: 1h}}]\n`
    const gateway = await runGateway(routes + options, { main })
    const headers = { Host: 'built.test', 'X-Token': 'of.no.token' }
    const { text, headers: got } = await request(`${gateway.url}/x`, { headers })
    gateway.kill('SIGTERM')
    expect(await gateway.end).toEqual({ code: 0, signal: null })
    return { text, cache: got['x-cache'] }
  }

  it('keeps answers on the disk', async () => {
    const origin = closing(await startOrigin((_request, response) => void response.end('answer')))
    const options = `cache: {disk: {path: "${join(root, 'cache.db')}", max: 64MiB}}`
    expect(await answerUnder(options, origin)).toEqual({ text: 'answer', cache: 'MISS' })
    expect(await answerUnder(options, origin)).toEqual({ text: 'answer', cache: 'HIT' })
  })

  it('looks for Redis, and reads tokens', async () => {
    const origin = closing(await startOrigin((_request, response) => void response.end('answer')))
    const jwt = `{header: X-Token, secret: ${'s'.repeat(32)}, claim: sub}`
    const options = `redis: {url: "redis://127.0.0.1:1"}\nidentity: {user: [{jwt: ${jwt}}]}`
    expect(await answerUnder(options, origin)).toMatchObject({ text: 'answer' })
  })

  it('has the demo', async () => {
    const demo = weirgate(['demo'], { main, env: { PORT: '0', ADMIN_PORT: '0' } })
    await demo.printed(/Ctrl-C ends it\./)
    demo.kill('SIGINT')
    expect((await demo.end).code).toBe(0)
  })
})

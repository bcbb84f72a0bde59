// The commands as somebody types them: what they print, on which stream, and how they end.

import { spawnSync } from 'node:child_process'
import { closeSync, existsSync, openSync, readFileSync } from 'node:fs'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { request } from '../support/client.ts'
import { closeAfterEach } from '../support/closing.ts'
import { until } from '../support/gateway.ts'
import { startOrigin } from '../support/origin.ts'
import { configFile, runGateway, weirgate, weirgateToEnd } from '../support/process.ts'

const closing = closeAfterEach()

const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url))

const NOBODY = 'listen: 127.0.0.1:8080\nadmin: {listen: 127.0.0.1:1}\n'
const TABLE = `
upstreams: {app: {targets: [http://127.0.0.1:1]}, ai: {targets: [http://127.0.0.1:2]}}
limits: {per-client: {limit: 60, window: 1m}, per-key: {limit: 5, window: 1s, key: header:x-api-key}}
defaults: {upstream: app, limits: [per-client]}
routes:
  - {path: /*, websocket: true}
  - {path: /api/:id, methods: [GET, HEAD], cache: {ttl: 1h}, rewrite: {strip: /api, prefix: /v2}}
  - {path: /api/ai, methods: [POST], upstream: ai, limits: [per-client, per-key]}
  - {path: /api/*, host: a.test, limits: []}
`

describe('the command line', () => {
  it('answers --version and --help with 0', async () => {
    const [version, help] = await Promise.all([weirgateToEnd(['--version']), weirgateToEnd(['--help'])])
    const { version: expected } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
      version: string
    }
    expect(version).toEqual({ code: 0, stdout: `${expected}\n`, stderr: '' })
    expect(help.code).toBe(0)
    for (const command of ['run', 'check', 'explain', 'purge', 'free', 'stats', 'demo', 'schema']) {
      expect(help.stdout).toMatch(new RegExp(`^  ${command} `, 'm'))
    }
  })

  it.skipIf(!existsSync('/dev/full'))('ends with 1 where what it prints finds no room, and says so', () => {
    const full = openSync('/dev/full', 'w')
    const { status, stderr } = spawnSync(process.execPath, [MAIN, 'schema'], {
      stdio: ['ignore', full, 'pipe'],
      encoding: 'utf8',
    })
    closeSync(full)
    expect(status).toBe(1)
    expect(stderr).toMatch(/^Standard output cannot be written: .*no space left on device.*\n$/)
  })

  it('ends with 2 where it is used wrongly, and says how', async () => {
    const cases: [string[], RegExp][] = [
      [[], /^Usage: weirgate/],
      [['chekc'], /unknown command 'chekc'\n\(Did you mean check\?\)/],
      [['check', '--jsno'], /unknown option '--jsno'\n\(Did you mean --json\?\)/],
      [['check', 'gateway.yaml'], /too many arguments .*\nA route table is named by -c FILE\.\n$/],
      [['explain', 'GET'], /missing required argument 'url'/],
      [
        ['explain', 'GET', '/x', '-H', 'no colon'],
        /expected a header field such as "Accept: text\/html", got "no colon"/,
      ],
      [['demo', '--ai-delay', 'soon'], /'soon' is invalid. Expected milliseconds/],
      [
        ['run', '-c', '/nowhere/gateway.yaml'],
        /^\/nowhere\/gateway\.yaml: expected a readable file, got no such file; name another with -c FILE\n$/,
      ],
    ]
    const ends = await Promise.all(cases.map(([args]) => weirgateToEnd(args)))
    for (const [i, { code, stdout, stderr }] of ends.entries()) {
      expect([cases[i]?.[0], code, stdout]).toEqual([cases[i]?.[0], 2, ''])
      expect(stderr).toMatch(cases[i]?.[1] as RegExp)
    }
  })
})

describe('weirgate check', () => {
  it('prints the table that the file comes to, most specific first, and as JSON', async () => {
    const { path } = configFile(TABLE)
    const [text, json] = await Promise.all([
      weirgateToEnd(['check', '-c', path]),
      weirgateToEnd(['check', '--json'], { env: { WEIRGATE_CONFIG: path } }),
    ])
    expect(text).toEqual({
      code: 0,
      stderr: '',
      stdout: `ROUTE         METHODS   UPSTREAM  CACHE   LIMITS              WEBSOCKET
a.test/api/*  all       app       -       -                   -
/api/ai       POST      ai        -       per-client per-key  -
/api/:id      GET HEAD  app       ttl 1h  per-client          -
/*            all       app       -       per-client          yes

LIMIT       RULE       KEY
per-client  60 per 1m  ip
per-key     5 per 1s   header:x-api-key
`,
    })
    expect(json.code).toBe(0)
    expect(JSON.parse(json.stdout)).toMatchObject([
      { route: 'a.test/api/*', host: 'a.test', methods: null, cache: null, limits: [] },
      { route: 'POST /api/ai', upstream: 'ai', limits: ['per-client', 'per-key'] },
      { route: 'GET,HEAD /api/:id', cache: 'ttl 1h' },
      { route: '/*' },
    ])
  })

  it('takes config/weirgate.yaml of the current folder where no file is named', async () => {
    const { code, stdout } = await weirgateToEnd(['check'])
    expect(code).toBe(0)
    expect(stdout).toContain('/api/v1/presentations/*')
  })

  it('check and explain tell what a route makes of an Idempotency-Key', async () => {
    const { path } = configFile(`
upstreams: {app: {targets: [http://127.0.0.1:8000]}}
admin: {listen: 127.0.0.1:1}
routes:
  - {path: /pay, methods: [POST], upstream: app, idempotency: {for: 2h, unknown: retry}}
  - {path: /*, upstream: app}
`)
    const explain = [
      'explain',
      'POST',
      '/pay',
      '-c',
      path,
      '-H',
      'Idempotency-Key: 8e03978e-40d5-43dd-bc93-6894a57f9324',
    ]
    const [check, told] = await Promise.all([weirgateToEnd(['check', '-c', path]), weirgateToEnd(explain)])
    expect(check.stdout).toMatch(/ONCE PER KEY\n\/pay .* POST, 2h, retried where unknown\n\/\* .* -\n/)
    expect(told.stdout).toMatch(/^once +the Idempotency-Key is new: it would be carried out$/m)
  })

  it('prints all ten faults of a file with their places and cures, a line each, and ends with 2', async () => {
    const golden = readFileSync(new URL('../golden/config/ten-errors.yaml', import.meta.url), 'utf8')
    const [yaml = '', expected = ''] = golden.split('---8<---\n')
    const { path, folder } = configFile(yaml)
    const { code, stdout, stderr } = await weirgateToEnd(['check', '-c', path])
    expect([code, stdout]).toEqual([2, ''])
    expect(stderr.replaceAll(`${folder}/gateway.yaml`, 'ten-errors.yaml')).toBe(expected)
    expect(stderr.trimEnd().split('\n')).toHaveLength(10)
  })
})

describe('weirgate schema', () => {
  it('prints the schema that config/weirgate.schema.json is', async () => {
    const { code, stdout } = await weirgateToEnd(['schema'])
    expect(code).toBe(0)
    const file = fileURLToPath(new URL('../../config/weirgate.schema.json', import.meta.url))
    expect(JSON.parse(stdout)).toEqual(JSON.parse(readFileSync(file, 'utf8')))
  })

  it('may be cut off by the reader of a pipe', async () => {
    const running = weirgate(['schema'])
    running.closeStdout()
    expect(await running.end).toEqual({ code: 0, signal: null })
    expect(running.stderr).toBe('')
  })
})

describe('weirgate explain', () => {
  it('where no gateway runs tells what the table alone says, and that it does', async () => {
    const { path } = configFile(NOBODY + TABLE)
    const explain = (...args: string[]) => weirgateToEnd(['explain', ...args, '-c', path])
    const [post, health, bad, cached] = await Promise.all([
      explain('post', 'http://other.test/api/ai?x=1', '-H', 'X-Api-Key: k', '-H', 'Accept: a'),
      explain('GET', '/health'),
      explain('GET', '/api/%2F'),
      explain('GET', '/api/7', '--json'),
    ])
    const note = 'note      no gateway runs at the admin address, so its cache and counters are taken as empty\n'
    expect(post).toEqual({
      code: 0,
      stderr: '',
      stdout: `request   POST other.test/api/ai?x=1 from 127.0.0.1
route     POST /api/ai
upstream  ai /api/ai?x=1
limit     per-client: admitted; 60 of 60 per 60 s left for ip=127.0.0.1
limit     per-key: admitted; 5 of 5 per 1 s left for header:x-api-key=k
${note}`,
    })
    expect(health.stdout).toBe(`request   GET 127.0.0.1:8080/health from 127.0.0.1
route     none: the gateway answers its health path itself
${note}`)
    expect(bad.stdout).toContain('refused   400 bad_target: The path has an encoded slash (%2F).\n')
    expect(JSON.parse(cached.stdout)).toMatchObject({
      host: '127.0.0.1:8080',
      route: 'GET,HEAD /api/:id',
      upstream_target: '/v2/7',
      cache: { outcome: 'miss', key: 'http://127.0.0.1:8080/api/7' },
    })
  })

  it('ends with 2 and all faults where the table is invalid', async () => {
    const { code, stderr } = await weirgateToEnd(['explain', 'GET', '/', '-c', configFile('routes: 1').path])
    expect(code).toBe(2)
    expect(stderr).toMatch(/gateway\.yaml:1:\d+ routes: /)
  })
})

/** The file with the ports that the gateway has found. */
const sameTable = (gateway: { url: string; adminUrl: string }, yaml: string, token = '') =>
  configFile(
    `listen: ${gateway.url.slice(7)}\nadmin: {listen: "${gateway.adminUrl.slice(7)}"${token === '' ? '' : `, token: ${token}`}}\n${yaml}`,
  ).path

describe('beside a running gateway', () => {
  it('explain, purge and stats ask it', async () => {
    const origin = closing(await startOrigin())
    const yaml = `
upstreams: {app: {targets: ["${origin.url}"]}}
limits: {two: {limit: 2, window: 1m}}
routes: [{path: /cached, upstream: app, cache: {ttl: 1h}}, {path: /limited, upstream: app, limits: [two]}]
`
    const gateway = await runGateway(yaml)
    const file = sameTable(gateway, yaml)
    const run = (...args: string[]) => weirgateToEnd([...args, '-c', file])
    for (const path of ['/cached', '/cached', '/limited', '/limited']) await request(gateway.url + path)
    const [cached, limited] = await Promise.all([run('explain', 'GET', '/cached'), run('explain', 'GET', '/limited')])
    expect(cached.stdout).toMatch(/^cache {5}hit, age \d+ s, fresh for 3\d\d\d s$/m)
    expect(cached.stdout).not.toContain('note')
    expect(limited.stdout).toMatch(
      /^refused {3}429 quota_exceeded: Policy two is used up; it admits again in \d+ s\.$/m,
    )
    expect(limited.stdout).toMatch(
      /^limit {5}two: refused, try again in \d+ s; 0 of 2 per 60 s left for ip=127\.0\.0\.1$/m,
    )

    const [purged, bad, table, json] = await Promise.all([
      run('purge', '/cached', `${gateway.url}/other`),
      run('purge', '/%zz'),
      run('stats'),
      run('stats', '--json'),
    ])
    expect(purged).toEqual({ code: 0, stdout: expect.stringMatching(/^\{"purged":1,.*\}\n$/), stderr: '' })
    const [tagged, matching, unclear, nothing] = await Promise.all([
      run('purge', '--tag', 'a', '--tag', 'b'),
      run('purge', '--pattern', '/other*'),
      run('purge', '/cached', '--all'),
      run('purge'),
    ])
    for (const { stdout } of [tagged, matching]) expect(JSON.parse(stdout)).toMatchObject({ purged: 0, shared: null })
    for (const refused of [unclear, nothing]) {
      expect([refused.code, refused.stderr]).toEqual([2, expect.stringMatching(/^Name what to purge, in one way: /)])
    }
    expect([bad.code, bad.stdout]).toEqual([2, ''])
    expect(bad.stderr).toMatch(/^The gateway answered 400: "\/%zz" cannot be purged: /)
    expect(table.stdout).toMatch(
      /^ROUTE +REQUESTS +ERRORS +LIMITED +HITS +P50 MS +P99 MS +SAVED\ntotal +4 +0 +0 +50\.0 % /,
    )
    expect(table.stdout).toMatch(/^\/cached +2 +0 +0 +50\.0 % /m)
    expect(table.stdout).toMatch(/\ncache: \d+ entries, \d+ of 268435456 bytes\n$/)
    expect(JSON.parse(json.stdout)).toMatchObject({ since_start: { routes: { '/limited': { requests: 2 } } } })
    expect((await request(`${gateway.url}/cached`)).headers['x-cache']).toBe('MISS')
    await until(() => origin.seen.length === 4, 'the purged URL to be fetched again')
  })

  it('send its token, and say so where it is another', async () => {
    const token = 'the-admin-token-of-this-test-'.padEnd(40, '0')
    const yaml = 'upstreams: {app: {targets: [http://127.0.0.1:1]}}\nroutes: [{path: /*, upstream: app}]\n'
    const gateway = await runGateway(
      `listen: {address: 127.0.0.1:0}\nadmin: {listen: 127.0.0.1:0, token: "\${ADMIN_TOKEN}"}\n${yaml}`,
      { env: { ADMIN_TOKEN: token } },
    )
    const [right, wrong] = await Promise.all([
      weirgateToEnd(['stats', '-c', sameTable(gateway, yaml, token)]),
      weirgateToEnd(['stats', '-c', sameTable(gateway, yaml, token.replace('the', 'not'))]),
    ])
    expect(right.code).toBe(0)
    expect(wrong).toEqual({ code: 1, stdout: '', stderr: 'The gateway answered 401: This is not the admin token.\n' })
  })

  it('purge ends with 1 where other instances could not be told', async () => {
    const yaml = `redis: {url: "redis://127.0.0.1:1"}
upstreams: {app: {targets: [http://127.0.0.1:1]}}
routes: [{path: /*, upstream: app}]
`
    const gateway = await runGateway(yaml)
    const { code, stdout, stderr } = await weirgateToEnd(['purge', '/x', '-c', sameTable(gateway, yaml, '')])
    expect(code).toBe(1)
    expect(JSON.parse(stdout)).toMatchObject({ purged: 0, unacknowledged: [], shared: false })
    expect(stderr).toMatch(/^Redis could not be reached: only this instance has purged\./)
  })
})

describe('free', () => {
  it('frees a key, and ends with 1 where there was nothing to be freed', async () => {
    const origin = closing(await startOrigin((_request, response) => void response.writeHead(500).end()))
    const yaml = `
upstreams: {app: {targets: ["${origin.url}"]}}
routes: [{path: /pay, upstream: app, idempotency: true}, {path: /other, upstream: app}]
`
    const gateway = await runGateway(yaml)
    const run = (...args: string[]) => weirgateToEnd(['free', ...args, '-c', sameTable(gateway, yaml)])
    const key = '8e03978e-40d5-43dd-bc93-6894a57f9324'
    const pay = { method: 'POST', headers: { 'Idempotency-Key': key } }
    expect((await request(`${gateway.url}/pay`, pay)).status).toBe(500)
    expect((await request(`${gateway.url}/pay`, pay)).status).toBe(409)
    const [freed, other] = [await run('/pay', key), await run('/other', key)]
    expect(freed).toMatchObject({ code: 0, stderr: '' })
    expect(JSON.parse(freed.stdout)).toMatchObject({ route: '/pay', freed: 1, shared: null })
    expect(other.code).toBe(1)
    expect(other.stderr).toBe(
      'The gateway answered 404: There is no route /other with Idempotency-Keys. These have: /pay.\n',
    )
    const again = await run('/pay', key)
    expect([again.code, again.stderr]).toEqual([1, expect.stringMatching(/^Nothing to free: /)])
    expect((await request(`${gateway.url}/pay`, pay)).status).toBe(500)
    expect(origin.seen).toHaveLength(2)
  })
})

describe('beside no gateway', () => {
  it('purge and stats end with 1 and say how to start one', async () => {
    const { path } = configFile(NOBODY + TABLE)
    const ends = await Promise.all([weirgateToEnd(['stats', '-c', path]), weirgateToEnd(['purge', '/x', '-c', path])])
    for (const { code, stdout, stderr } of ends) {
      expect([code, stdout]).toEqual([1, ''])
      expect(stderr).toMatch(/^No gateway answers at http:\/\/127\.0\.0\.1:1\/api\/\S+; weirgate run starts one\.\n$/)
    }
  })

  it.each([
    ['HTML', 200, 'text/html', '<html>hello</html>'],
    ['JSON of its own', 200, 'application/json', '{"status": "ok"}'],
    ['an error of its own', 404, 'application/json', '{"detail": "Not Found"}'],
  ])('say so where something else answers, in %s', async (_what, status, type, text) => {
    const other = http.createServer((_incoming, response) => {
      response.writeHead(status, { 'Content-Type': type }).end(text)
    })
    await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve))
    closing({ close: () => new Promise((resolve) => other.close(() => resolve())) })
    const { port } = other.address() as AddressInfo
    const { path } = configFile(`admin: {listen: "127.0.0.1:${port}"}\n${TABLE}`)
    const { code, stderr } = await weirgateToEnd(['stats', '-c', path])
    expect(code).toBe(1)
    expect(stderr).toBe(
      `What answers at http://127.0.0.1:${port}/api/stats is not a gateway; admin.listen names its address.\n`,
    )
  })
})

// The public suite github.com/http-tests/cache-tests, which is not part of this repository: found by the environment,
// copied to a place of its own beside our undici (its client needs one), and called by the names that it gives things.

import { execFileSync, spawn } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { devNull, tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

export interface SuiteTest {
  readonly id: string
  readonly kind?: 'required' | 'optimal' | 'check'
  readonly browser_only?: boolean
}

interface TestGroup {
  readonly tests: readonly SuiteTest[]
}

/** true, or the name of an error and its message. */
export type Outcome = true | readonly [string, string]

export interface Suite {
  /** The commit, where it is known. */
  readonly version: string
  /** The tests that concern a shared cache. */
  readonly tests: readonly SuiteTest[]
  /** Runs these tests against a cache, all at once; answers what came out, by id. */
  run(ids: ReadonlySet<string>, baseUrl: string): Promise<ReadonlyMap<string, Outcome>>
  /** The suite's own judgement: `pass`, `fail`, `dependency_fail`... A test counts only with all that it builds on. */
  judge(id: string, outcomes: ReadonlyMap<string, Outcome>): string
  /** Starts its origin on a free port. */
  startOrigin(): Promise<{ readonly url: string; stop(): void }>
  remove(): void
}

export const WHERE =
  'This needs a checkout of github.com/http-tests/cache-tests: name it in CACHE_TESTS_DIR, or a git directory of it, bare or not, in CACHE_TESTS_GIT.'

const NODE_MODULES = fileURLToPath(new URL('../../node_modules', import.meta.url))

/** Throws an Error that says what is missing. */
export async function openSuite(env: NodeJS.ProcessEnv): Promise<Suite> {
  const root = mkdtempSync(join(tmpdir(), 'weirgate-conformance-'))
  try {
    const version = copySuite(env, root)
    symlinkSync(NODE_MODULES, join(root, 'node_modules'))
    return await loadSuite(root, version)
  } catch (error) {
    rmSync(root, { recursive: true, force: true })
    throw error
  }
}

/** Answers the version. */
function copySuite(env: NodeJS.ProcessEnv, root: string): string {
  const dir = env['CACHE_TESTS_DIR'] ?? ''
  const gitDir = env['CACHE_TESTS_GIT'] ?? ''
  if (dir !== '') {
    if (!existsSync(join(dir, 'test-engine')))
      throw new Error(`${resolve(dir)} (CACHE_TESTS_DIR) is no checkout. ${WHERE}`)
    for (const part of ['test-engine', 'tests']) cpSync(join(dir, part), join(root, part), { recursive: true })
    return 'a checkout'
  }
  if (gitDir === '') throw new Error(WHERE)
  const git = (...args: string[]) =>
    execFileSync('git', [`--git-dir=${gitDir}`, ...args], { maxBuffer: 2 ** 28, stdio: ['ignore', 'pipe', 'ignore'] })
  let version: string
  try {
    version = git('log', '-1', '--format=%h of %cs').toString().trim()
  } catch {
    throw new Error(`${resolve(gitDir)} (CACHE_TESTS_GIT) is no git directory with commits. ${WHERE}`)
  }
  mkdirSync(root, { recursive: true })
  execFileSync('tar', ['-x', '-C', root], { input: git('archive', 'HEAD', 'test-engine', 'tests') })
  return version
}

async function loadSuite(root: string, version: string): Promise<Suite> {
  const load = (file: string): Promise<unknown> => import(pathToFileURL(join(root, file)).href)
  const { default: groups } = (await load('tests/index.mjs')) as { default: readonly TestGroup[] }
  const { runTests } = (await load('test-engine/client/runner.mjs')) as {
    runTests: (groups: readonly TestGroup[], isBrowser: boolean, base: string, atOnce: number) => Promise<void>
  }
  const { testResults } = (await load('test-engine/client/test.mjs')) as { testResults: Record<string, Outcome> }
  const { determineTestResult, resultTypes } = (await load('test-engine/lib/results.mjs')) as {
    determineTestResult: (groups: readonly TestGroup[], id: string, results: Record<string, Outcome>) => unknown
    resultTypes: Record<string, unknown>
  }
  const verdicts = new Map(Object.entries(resultTypes).map(([name, type]) => [type, name]))

  return {
    version,
    tests: groups.flatMap(({ tests }) => tests).filter((test) => test.browser_only !== true),
    async run(ids, baseUrl) {
      // Its client writes into the tests that it runs, and into one table of results.
      const chosen = structuredClone(groups).map(({ tests }) => ({ tests: tests.filter(({ id }) => ids.has(id)) }))
      for (const id of Object.keys(testResults)) delete testResults[id]
      // It logs each set-up that fails, which is part of the results.
      const { error } = console
      console.error = () => {}
      await runTests(chosen, false, baseUrl, AT_ONCE).finally(() => (console.error = error))
      return new Map(Object.entries(testResults))
    },
    judge: (id, outcomes) => verdicts.get(determineTestResult(groups, id, Object.fromEntries(outcomes))) ?? 'unknown',
    async startOrigin() {
      const env = { ...process.env, npm_config_protocol: 'http', npm_config_port: '0', npm_config_pidfile: devNull }
      const server = spawn(process.execPath, ['test-engine/server/server.mjs'], {
        cwd: root,
        env,
        stdio: ['ignore', 'pipe', 'inherit'],
      })
      const stop = () => void server.kill()
      process.once('exit', stop)
      const port = await new Promise<string>((found, missed) => {
        server.once('exit', (code) => missed(new Error(`The origin of the suite ended with ${code}.`)))
        // It prints what goes wrong, too: read on, so that it is never held up.
        server.stdout.on('data', (chunk: Buffer) => {
          const [, listening] = /Listening on .*:(\d+)\//.exec(chunk.toString()) ?? []
          if (listening !== undefined) found(listening)
        })
      })
      return { url: `http://127.0.0.1:${port}`, stop }
    },
    remove: () => rmSync(root, { recursive: true, force: true }),
  }
}

/** They wait most of their time; the results are the same as with the suite's own 25, which takes a minute. */
const AT_ONCE = 400

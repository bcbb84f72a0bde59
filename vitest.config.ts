import { defineConfig } from 'vitest/config'
import type { Reporter, TestModule } from 'vitest/node'

// The run's result as one plain line that any tool can read, whatever the terminal.
const plainTotals: Reporter = {
  onTestRunEnd(modules: readonly TestModule[]) {
    const count = { passed: 0, failed: 0, skipped: 0, pending: 0 }
    for (const module of modules) {
      if (module.errors().length > 0) count.failed++
      for (const test of module.children.allTests()) count[test.result().state]++
    }
    console.log(`\n${count.passed} passed, ${count.failed} failed, ${count.skipped + count.pending} skipped`)
  },
}

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    reporters: ['default', plainTotals],
    testTimeout: 20_000,
    hookTimeout: 20_000,
  },
})

# Builds from source: the C parts want the compiler of the machine.
class Osaurus < Formula
  desc "Security backend for local AI agents: identity, pairing, encrypted channels"
  homepage "@BASE_URL@"
  url "@BASE_URL@/osaurus-@VERSION@-source.tar.gz"
  version "@VERSION@"
  sha256 "@SHA256@"
  license "MIT"

  depends_on "go" => :build

  def install
    ENV["CGO_ENABLED"] = "1"
    ldflags = "-s -w -X osaurus/app/cli.Version=#{version}"
    system "go", "build", "-trimpath", "-tags", "sqlite_fts5,sqlite_json", *std_go_args(ldflags:), "./app/osaurus"
    generate_completions_from_executable(bin/"osaurus", "completion")
  end

  service do
    run [opt_bin/"osaurus", "--quiet", "serve"]
    keep_alive successful_exit: false
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/osaurus version")
    assert_match "There is no identity yet", shell_output("#{bin}/osaurus --home #{testpath}/h doctor")
  end
end

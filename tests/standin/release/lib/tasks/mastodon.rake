namespace :mastodon do
  namespace :webpush do
    desc "Print a key pair for web push: two lines for the environment file"
    task :generate_vapid_key do
      key = OpenSSL::PKey::EC.generate("prime256v1")
      encode = ->(bytes) { Base64.urlsafe_encode64(bytes) }
      puts "VAPID_PRIVATE_KEY=#{encode.call(key.private_key.to_s(2).rjust(32, "\0"))}"
      puts "VAPID_PUBLIC_KEY=#{encode.call(key.public_key.to_bn.to_s(2))}"
    end
  end
end

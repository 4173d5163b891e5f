require "builder"

# Public profiles and posts.
class AccountsController < ApplicationController
  before_action :cacheable
  before_action :find_account, except: :redirect

  # Old addresses. A browser is sent on before anybody looks whether the account exists.
  def redirect
    return redirect_to("/@#{params[:username]}", status: :moved_permanently) if request.format.html?

    @account = find_account
    render json: actor
  end

  def show
    @statuses = @account.statuses.visible.limit(20)
    respond_to do |format|
      format.html
      format.rss { render body: rss, content_type: "application/rss+xml" }
      format.json { render json: actor }
    end
  end

  def status
    @status = @account.statuses.visible.find(params[:id])
    respond_to do |format|
      format.html
      format.json { render json: StatusJson.of(@status) }
    end
  end

  private

  def find_account
    @account = Account.find_local(params[:username]) || raise(NotFound)
    @account.suspended? ? raise(NotFound) : @account
  end

  def actor
    { "@context" => "https://www.w3.org/ns/activitystreams", id: @account.uri, type: "Person", preferredUsername: @account.username,
      url: @account.url, name: @account.display_name, summary: @account.note, publicKey: { owner: @account.uri, publicKeyPem: @account.public_key } }
  end

  def rss
    feed = ::Builder::XmlMarkup.new
    feed.rss(version: "2.0") do
      feed.channel do
        feed.title("#{@account.display_name.presence || @account.username}@#{local_domain}")
        feed.link(@account.url)
        @statuses.each { |status| feed.item { feed.guid(status.url) && feed.description(status.text) } }
      end
    end
  end
end

class Api::V1::MediaController < Api::BaseController
  before_action -> { require_user("write:media") }, except: :show
  before_action -> { require_user("read") }, only: :show

  def create
    bytes = params.require(:file).read
    content_type = MediaAttachment.content_type_of(bytes)
    raise Refused.new(422, "Validation failed: File content type is not supported") unless content_type

    attachment = MediaAttachment.new(account: @user.account, type: :image, description: params[:description], processing: 2)
    attachment.store!(bytes, content_type)
    render json: StatusJson.media(attachment)
  rescue ObjectStore::Unavailable
    raise Refused.new(503, "There was a temporary problem serving your request, please try again")
  end

  def show = render(json: StatusJson.media(mine))

  def update
    mine.update!(description: params[:description])
    show
  end

  private

  def mine = MediaAttachment.find_by!(id: params[:id], account: @user.account)
end
